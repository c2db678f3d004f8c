# shellcheck shell=bash
# Queues tasks again that ended without results, in their own folders, as the launcher's resume does (executors/slurm/executor.py, resume_job).
# A task of which a job is in the queue is left alone, so that the same command, given again at any time, queues none twice.
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
  if [ ! -d "$RUNDIR" ]; then
    frame gone - "$RUNDIR"
    finish
  fi
  lock
  learn_folders
  if ! look_up "$DAYS"; then
    frame no-queue - "$queue"
    finish
  fi
  for index in "${!NAMES[@]}"; do
    alive_job "$index"
    if [ -n "$first" ]; then
      # Queued by a resume that was stopped before it had written it down, unless it is a successor that was at work already.
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
    # A successor that waits for what will never be (DependencyNeverSatisfied) would wait for ever.
    for id in ${found_ids[@]+"${found_ids[@]}"}; do
      if [ "${job_name[$id]}" = "${NAMES[index]}" ] && [ -n "${job_waits[$id]-}" ]; then cancel_jobs "$id"; fi
    done
    # What an earlier attempt left that would be taken for this one's, or end it: its jobs, its walltime, its being interrupted.
    rm -f -- "${DIRS[index]}"/{.slurm_job_id.list,.accumulated_walltime,artifacts/.nemo_evaluator_interrupted,artifacts/results.yml}
    if queue_one "$index" alive_job; then
      note_submitted "${DIRS[index]}" "$first"
      frame queued "$index" "$first"
    elif [ -n "$unsure" ]; then
      frame unsure "$index" "$unsure"
      finish
    else
      frame refused "$index" "$said"
    fi
  done
  finish
}
