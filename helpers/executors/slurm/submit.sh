# shellcheck shell=bash
# Needs: cluster/queueing.sh
# Submits each task that has no job yet, once. It can run again at any time, even while it is still running, and finds what was done.
#   RUNDIR NAMES DIRS DAYS    as in prepare.sh
#   KEEP_PARTIAL              1: if a task is refused, the jobs of the others stay
# shellcheck disable=SC2154

main() {
  local index refused='' jobs=() id
  [ -d "$RUNDIR" ] || finish gone - "$RUNDIR"
  lock
  learn_folders
  look_up "$DAYS" || finish no-queue - "$queue"
  for index in "${!NAMES[@]}"; do read_submitted "${DIRS[index]}"; done
  # Jobs that were taken back by a script that was stopped before it had cancelled them.
  for id in ${found_ids[@]+"${found_ids[@]}"}; do
    if [ -n "${is_void[$id]-}" ] && lives "${job_state[$id]}"; then cancel_jobs "$id"; fi
  done
  for index in "${!NAMES[@]}"; do
    first_job "$index"
    if [ -n "$first" ]; then
      [ -n "$submitted" ] || note_submitted "${DIRS[index]}" "$first"
      frame found "$index" "$first"
      jobs+=("$first")
      continue
    fi
    if [ -n "$refused" ] && [ "$KEEP_PARTIAL" != 1 ]; then continue; fi
    [ -r "${DIRS[index]}/run.sub" ] || finish gone "$index" "${DIRS[index]}/run.sub"
    if queue_one "$index" first_job; then
      note_submitted "${DIRS[index]}" "$first"
      # If nobody reads our answer any more, the script ends here.
      frame queued "$index" "$first"
      jobs+=("$first")
    elif [ -n "$unsure" ]; then
      finish unsure "$index" "$unsure"
    else
      frame refused "$index" "$said"
      refused=$index
    fi
  done
  if [ -n "$refused" ] && [ "$KEEP_PARTIAL" != 1 ] && ((${#jobs[@]})); then
    # From now on every job with the tasks' names is void, even if this script ends here: our jobs, and the successors that were queued by
    # those that have started. Successors are cancelled first. No void job is mistaken for a task's job later.
    for index in "${!NAMES[@]}"; do
      first_job "$index"
      [ -z "$first" ] || take_back "$index" "$first"
    done
    look_up "$DAYS"
    for id in ${found_ids[@]+"${found_ids[@]}"}; do
      for index in "${!NAMES[@]}"; do
        if [ "${NAMES[index]}" = "${job_name[$id]}" ] && [ -z "${is_void[$id]-}" ]; then take_back "$index" "$id"; fi
      done
      if lives "${job_state[$id]}" && [[ " ${jobs[*]} " != *" $id "* ]]; then jobs=("$id" "${jobs[@]}"); fi
    done
    cancel_jobs "${jobs[@]}" || finish left - "${left[*]}"
    frame taken-back - "${jobs[*]}"
  fi
  finish
}
