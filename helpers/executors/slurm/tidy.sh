# shellcheck shell=bash
# Needs: cluster/common.sh
# Removes the successors of tasks that succeeded from the queue. They never start, but Slurm keeps them (DependencyNeverSatisfied) unless its
# DependencyParameters say otherwise, and they count against its limits.
#   RUNDIR NAMES DIRS DAYS    as in prepare.sh
# shellcheck disable=SC2154
main() {
  local id ids=()
  learn_folders
  if look_up "$DAYS"; then
    for id in ${found_ids[@]+"${found_ids[@]}"}; do
      [ -z "${job_waits[$id]-}" ] || ids+=("$id")
    done
    if ((${#ids[@]})); then slurm scancel "${ids[@]}" > /dev/null 2>&1; fi
  fi
  finish
}
