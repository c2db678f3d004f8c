# shellcheck shell=bash
# Before a submission, in one round trip: can its folder be written, is there room, are its mounts there, does Slurm take the script; and
# which of its jobs are there already. Nothing is left behind but the run's folder.
#   OUTPUT RUNDIR      execution.output_dir, and the run's folder in it
#   PATHS              what jobs read: the checkpoint, the other mounts, squashed images
#   SCRIPT             the sbatch script of the first task: the others ask for the same of Slurm
#   PARTITION          its partition, or several
#   NAMES DIRS         job name and folder of each task
#   DAYS               how far back accounting is asked
# shellcheck disable=SC2154
main() {
  local said path index tested
  frame who - "$me@$here"
  # 1 MiB: an empty file fits on a full disk, and a quota shows up only in writing.
  if said=$({ mkdir -p -- "$RUNDIR" && head -c 1048576 /dev/zero > "$RUNDIR/.probe.$$"; } 2>&1); then
    rm -f -- "$RUNDIR/.probe.$$"
  else
    rm -f -- "$RUNDIR/.probe.$$"
    frame output - "$said"
  fi
  frame room - "$(df -Pk -- "$OUTPUT" 2> /dev/null | tail -n 1)"
  for path in ${PATHS[@]+"${PATHS[@]}"}; do
    if [ ! -e "$path" ]; then
      frame missing - "$path"
    elif [ ! -r "$path" ]; then
      frame closed - "$path"
    fi
  done
  learn_folders
  if look_up "$DAYS"; then
    for index in "${!NAMES[@]}"; do
      first_job "$index"
      frame job "$index" "$first"
    done
  else
    frame no-queue - "$queue"
  fi
  tested=$(printf '%s' "$SCRIPT" | timeout -k 5 60 sbatch --test-only 2>&1)
  frame tested $? "$tested"
  # What --test-only does not tell: that the job would never start there.
  [ -z "$PARTITION" ] || frame partition - "$(slurm sinfo --noheader --partition="$PARTITION" -o '%R|%l|%a' 2> /dev/null)"
  finish
}
