# shellcheck shell=bash
# Needs: executors/slurm/asking.sh
# The states of tasks, once: see asking.sh.
# shellcheck disable=SC2154
main() {
  ask
  finish
}
