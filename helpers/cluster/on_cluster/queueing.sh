# shellcheck shell=bash
# Queueing one job, once: for submit.sh and resume.sh.
# Slurm's own record comes first: a job is looked for, by its name and folder, before one is queued, and again when sbatch gave no id.
# shellcheck disable=SC2034,SC2153,SC2154

# What sbatch says when it is worth trying again: the controller is restarting, or too busy.
passing='Unable to contact slurm controller|Socket timed out|Connection refused|Connection timed out|Zero Bytes|temporarily unable|Transport endpoint'

# queue_one INDEX FIND: its id in $first; or empty, with Slurm's words in $said, and $unsure when it could not be asked whether the job is
# there. FIND INDEX puts into $first the job that a lost answer was about.
queue_one() {
  local dir=${DIRS[$1]} end=$((SECONDS + 75)) code
  unsure=
  while :; do
    still_here
    said=$(cd -P -- "$dir" && {
      [ -z "$was_lc_all" ] || export LC_ALL=$was_lc_all
      SLURM_SECONDS=60 slurm sbatch --parsable run.sub 2>&1
    })
    code=$?
    first=$(grep -oE '^[0-9]+' <<< "$said" | tail -n 1)
    ((code)) || [ -z "$first" ] || return 0
    first=
    case $code in 124 | 137) said="sbatch did not answer within 60 s: Socket timed out" ;; esac
    # The answer may have been lost after the job was queued.
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
      # One that hung may still be at work.
      case $code in 124 | 137) unsure=$said ;; esac
      return 1
    fi
    sleep 2
  done
}
