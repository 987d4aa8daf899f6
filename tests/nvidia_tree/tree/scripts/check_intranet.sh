#!/bin/bash
# In the real tree this asks the network on every make call, unless EXTERNAL_USER is set.
echo 1
