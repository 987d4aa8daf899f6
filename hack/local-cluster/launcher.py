#!/usr/bin/env python3
"""Starts the local cluster's command line: `python3 hack/local-cluster/launcher.py --help`."""

import sys

from local_cluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
