# shellcheck shell=sh
# Stand-in for tests: shared by the programs and package scripts that play a node's kernel and services.
# There are no local variables here: moment, way, refcnt, device, vendor and class
# are this file's.
# What a test arranges lies in /standin/knobs; what happened is in /standin/calls.

standin=/standin
modules=/sys/module
# shellcheck disable=SC2034 # its readers are the programs and package scripts
kernel=$(uname -r)

# hook WORDS: a moment at which a test may have arranged something.
#   knobs/sleep.NAME      seconds to wait; at/NAME says that it is now
#   knobs/fail.NAME       say this text and fail, each time
#   knobs/fail-once.NAME  the same, one time
hook() {
  # A pod in mode Verify has the root read-only.
  [ ! -w $standin ] || echo "$*" >>$standin/calls
  moment=$(echo "$*" | tr ' /' '..')
  if [ -e "$standin/knobs/sleep.$moment" ]; then
    mkdir -p $standin/at
    : >"$standin/at/$moment"
    sleep "$(cat "$standin/knobs/sleep.$moment")"
  fi
  for way in fail fail-once; do
    [ -e "$standin/knobs/$way.$moment" ] || continue
    cat "$standin/knobs/$way.$moment" >&2
    [ $way = fail ] || rm "$standin/knobs/$way.$moment"
    return 1
  done
}

# uses MODULE CHANGE: its reference count.
uses() {
  refcnt=$modules/$1/refcnt
  [ ! -e "$refcnt" ] || echo $(($(cat "$refcnt") + $2)) >"$refcnt"
}

loaded_version() { cat $modules/nvidia/version 2>/dev/null; }

# pci CLASS: addresses of NVIDIA's devices of this class.
pci() {
  for device in /sys/bus/pci/devices/*; do
    [ -e "$device/vendor" ] || continue
    read -r vendor <"$device/vendor"
    read -r class <"$device/class"
    if [ "$vendor" = 0x10de ] && [ "$class" = "$1" ]; then echo "${device##*/}"; fi
  done
}
