# shellcheck shell=bash
# Needs: cluster/common.sh
# Before a submission, in one round trip: can its folder be written, is there enough space, do its mounts exist, does Slurm accept the
# script, and which of its jobs exist already. Leaves nothing behind but the run's folder.
#   OUTPUT RUNDIR      execution.output_dir, and the run's folder in it
#   PATHS              what jobs read: the checkpoint, other mounts, squashed images
#   SCRIPT             the sbatch script of the first task: the others ask Slurm for the same
#   PARTITION          its partition, or several
#   NAMES DIRS         the job name and the folder of each task
#   DAYS               how far back accounting is asked
# shellcheck disable=SC2154
main() {
  local said path index tested
  # 1 MiB: an empty file fits on a full disk, and only writing shows a quota.
  said=$({ mkdir -p -- "$RUNDIR" && head -c 1048576 /dev/zero > "$RUNDIR/.probe.$$"; } 2>&1) || frame output - "$said"
  rm -f -- "$RUNDIR/.probe.$$"
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
  # --test-only does not say if the job would never start in its partition.
  [ -z "$PARTITION" ] || frame partition - "$(slurm sinfo --noheader --partition="$PARTITION" -o '%R|%l|%a' 2> /dev/null)"
  finish
}
