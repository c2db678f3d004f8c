# shellcheck shell=bash
# Needs: cluster/common.sh
# Queueing a job exactly once. Slurm's own record counts: we look for the job, by its name and folder, before we queue it, and again if
# sbatch gave no id.
# shellcheck disable=SC2034,SC2153,SC2154

# What sbatch prints if a second try may succeed: the controller is restarting, or too busy.
passing='Unable to contact slurm controller|Socket timed out|Connection refused|Connection timed out|Zero Bytes|temporarily unable|Transport endpoint'

# submit FOLDER: sets $first to the id that sbatch prints, or to nothing, $said to its words, and $code
submit() {
  said=$(cd -P -- "$1" && {
    [ -z "$was_lc_all" ] || export LC_ALL=$was_lc_all
    SLURM_SECONDS=60 slurm sbatch --parsable run.sub 2>&1
  })
  code=$?
  first=$(job_id "$said")
}

# queue_one INDEX FIND: sets $first to the id. If that fails, $first is empty and $said holds Slurm's words; $unsure is set if we cannot know
# whether the job exists. FIND INDEX sets $first to the job that a lost answer was about.
queue_one() {
  local end=$((SECONDS + 75)) code
  unsure=
  while :; do
    still_here
    submit "${DIRS[$1]}"
    ((code)) || [ -z "$first" ] || return 0
    first=
    case $code in 124 | 137) said="sbatch did not answer within 60 s: Socket timed out" ;; esac
    # The job may have been queued although the answer was lost.
    until look_up "$DAYS"; do
      if ((SECONDS > end)); then
        unsure=$queue
        return 1
      fi
      still_here
      sleep 2
    done
    "$2" "$1"
    [ -z "$first" ] || return 0
    if ((SECONDS >= end)) || [[ ! $said =~ $passing ]]; then
      # A call that hung may still queue the job.
      case $code in 124 | 137) unsure=$said ;; esac
      return 1
    fi
    sleep 2
  done
}
