# shellcheck shell=bash
# Needs: cluster/common.sh
# Cancels every job of some tasks, successors included, until squeue shows none of them and no new one.
#   RUNDIR NAMES DIRS DAYS    as in prepare.sh
#   TAKE_BACK                 1: the jobs belong to a submission that was never recorded; a later one submits the tasks again
# shellcheck disable=SC2154
main() {
  local index id ids
  # An interrupted submission may still be running sbatch, and its job would come after we have looked.
  [ ! -d "$RUNDIR" ] || lock
  learn_folders
  for index in "${!NAMES[@]}"; do read_submitted "${DIRS[index]}"; done
  for _ in 1 2 3 4; do
    look_up "$DAYS" || finish no-queue - "$queue"
    ids=()
    for id in ${found_ids[@]+"${found_ids[@]}"}; do
      if [ "$TAKE_BACK" = 1 ] && [ -z "${is_void[$id]-}" ]; then
        for index in "${!NAMES[@]}"; do
          [ "${NAMES[index]}" != "${job_name[$id]}" ] || take_back "$index" "$id"
        done
      fi
      if lives "${job_state[$id]}" && [[ ${job_state[$id]} != COMPLETING ]]; then ids+=("$id"); fi
    done
    ((${#ids[@]})) || break
    # The highest first: a successor must be cancelled before the job that it waits for ends.
    mapfile -t ids < <(printf '%s\n' "${ids[@]}" | sort -rn)
    for id in "${ids[@]}"; do frame cancelled "$id" "${job_name[$id]}"; done
    cancel_jobs "${ids[@]}" || finish left - "${left[*]}"
    for index in "${!NAMES[@]}"; do
      for id in "${ids[@]}"; do
        if [ "${NAMES[index]}" = "${job_name[$id]}" ] && [ "$TAKE_BACK" != 1 ]; then
          note_submitted "${DIRS[index]}" cancelled
          break
        fi
      done
    done
  done
  finish
}
