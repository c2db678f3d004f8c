# shellcheck shell=bash
# Needs: cluster/queueing.sh
# Queues tasks that ended without results again, in their own folders, as the launcher's resume_job does (executors/slurm/executor.py).
# A task with a job in the queue is left alone, so the script can run again at any time and queues no task twice.
#   RUNDIR NAMES DIRS DAYS    as in prepare.sh
# shellcheck disable=SC2154
# shellcheck disable=SC2317 # called by its name, through queue_one
alive_job() {
  local id
  first=
  for id in ${found_ids[@]+"${found_ids[@]}"}; do
    if [ "${job_name[$id]}" != "${NAMES[$1]}" ] || ! lives "${job_state[$id]}" || [ "${job_state[$id]}" = COMPLETING ]; then continue; fi
    [ -n "${job_waits[$id]-}" ] || first=$id
  done
}

main() {
  local index id
  [ -d "$RUNDIR" ] || finish gone - "$RUNDIR"
  lock
  learn_folders
  look_up "$DAYS" || finish no-queue - "$queue"
  for index in "${!NAMES[@]}"; do
    alive_job "$index"
    if [ -n "$first" ]; then
      # A resume that was stopped before it could write the job down queued it, unless it is a successor that was running before.
      read_submitted "${DIRS[index]}"
      if ((submitted + 0 < first)) && ! { head -n 1 "${DIRS[index]}/.slurm_job_id.list" | grep -qx "$submitted"; } 2> /dev/null; then
        note_submitted "${DIRS[index]}" "$first"
      fi
      frame found "$index" "$first"
      continue
    fi
    if [ ! -r "${DIRS[index]}/run.sub" ]; then
      frame gone "$index" "${DIRS[index]}/run.sub"
      continue
    fi
    # A successor whose condition can never be met (DependencyNeverSatisfied) would wait for ever.
    for id in ${found_ids[@]+"${found_ids[@]}"}; do
      if [ "${job_name[$id]}" = "${NAMES[index]}" ] && [ -n "${job_waits[$id]-}" ]; then cancel_jobs "$id"; fi
    done
    # Answers that carried nothing to score would be given to the harness again.
    if grep -qs '"scorable": 0,' "${DIRS[index]}/answers.json"; then rm -rf -- "${DIRS[index]}/artifacts/cache"; fi
    # Remove what an earlier attempt left that would be mistaken for this one's or end it: its jobs, walltime, interruption and results.
    rm -f -- "${DIRS[index]}"/{.slurm_job_id.list,.accumulated_walltime,answers.json,artifacts/.nemo_evaluator_interrupted,artifacts/results.yml}
    if queue_one "$index" alive_job; then
      note_submitted "${DIRS[index]}" "$first"
      frame queued "$index" "$first"
    elif [ -n "$unsure" ]; then
      finish unsure "$index" "$unsure"
    else
      frame refused "$index" "$said"
    fi
  done
  finish
}
