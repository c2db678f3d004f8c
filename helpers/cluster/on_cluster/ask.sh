# shellcheck shell=bash
# Where tasks stand, once: see asking.sh.
# shellcheck disable=SC2154
main() {
  ask
  finish
}
