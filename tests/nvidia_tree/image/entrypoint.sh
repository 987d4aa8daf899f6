#!/bin/sh
# Stand-in for tests: sets up something that only containers have whose entrypoint was left in place.
export STANDIN_ENTRYPOINT=1
exec "$@"
