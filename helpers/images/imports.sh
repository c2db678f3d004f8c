# shellcheck shell=bash
# Needs: cluster/queueing.sh images/cache.sh
# The states of some imports; begins those that nobody has begun. It can run again at any time, and begins none twice.
#   FOLDER            the cache folder
#   KEYS STEMS OLDS   for each image: its 12 hex digits, its file's name, and the imports that do not count since it is imported by force
#   TOKENS            the name under which we would hold its lock; the job's name ends in it
#   STARTS            1: begin it if nobody has
#   WATCHED           the token of the import that was seen running the last time, or empty
#   SUBS JOBS         for those that may be begun: the sbatch script, and what it runs (import_job.sh)
#   STALE GIVEN_UP    a job without a beat for STALE seconds is dead; one that is queued for GIVEN_UP seconds, and not in squeue, too
# shellcheck disable=SC2154
umask 027

declare -A job_is=() was_asked=()
unasked=
# Asks for the jobs of all locks at once. squeue may hide other users' jobs, so a missing one may still exist.
ask_queue() {
  local lock ids=() id state reason
  for lock in "$FOLDER"/.*.lock/*/id; do
    { read -r id < "$lock"; } 2> /dev/null && [[ $id =~ ^[0-9]+$ ]] || continue
    ids+=("$id")
    was_asked[$id]=1
  done
  ((${#ids[@]})) || return 0
  # squeue fails if Slurm has forgotten the only id that is asked for.
  queue=$(slurm squeue --noheader --states=all --jobs="$(IFS=,; echo "${ids[*]}")" -o '%i|%T|%r' 2>&1) \
    || [[ $queue == *"Invalid job id"* ]] || { was_asked=() unasked=1; }
  while IFS='|' read -r id state reason; do
    [[ ! $id =~ ^[0-9]+$ ]] || job_is[$id]="$state|$reason"
  done <<< "$queue"
}

# holder_of LOCK: sets $token to that of its holder; fails if there is none
holder_of() {
  local path
  token=
  for path in "$1"/*; do [ ! -d "$path" ] || token=${path##*/}; done
  [ -n "$token" ]
}

# ending ID: sets $states to the states in which a job and its steps ended, its own first. Fails while the job has not quite ended, and if
# Slurm does not answer.
ending() {
  states=
  [ -n "$1" ] || return 0
  if ! states=$(slurm squeue --noheader --states=all --jobs="$1" -o '%i|%T' 2>&1); then
    [[ $states == *"Invalid job id"* ]] || return 1
  fi
  states=$(sed -n "s/^$1|//p" <<< "$states")
  ! lives "${states:-gone}" || return 1
  account=$(slurm sacct -P -n --jobs="$1" -o JobIDRaw,State 2> /dev/null)
  # If a step was killed for its memory, the job itself is only FAILED.
  states+=" $(sed -nE "s/^$1\|([A-Z_]+).*/\1/p" <<< "$account") $(grep -m 1 -o '|OUT_OF_MEMORY' <<< "$account" | tr -d '|')"
  states=${states//$'\n'/ }
}

# failed KEY TOKEN: reports a failed import: its job, how that ended, the verdict of import_job.sh, and the end of its log
failed() {
  local dir=$FOLDER/.failed.$2 id='' verdict='' states
  [ ! -d "$dir/$2" ] || dir=$dir/$2
  { read -r id < "$dir/id"; } 2> /dev/null
  { read -r verdict < "$dir/verdict"; } 2> /dev/null
  if ! ending "$id"; then
    frame ending "$1" "$2"$'\n'"$id"
    return
  fi
  frame failed "$1" "$2"$'\n'"$id"$'\n'"$states"$'\n'"$verdict"$'\n'"$(cat "$dir/enroot" 2> /dev/null)"$'\n'"$(
    tail -c 6000 -- "$dir/log" 2> /dev/null | tr '\r' '\n' | tr -d '\0'
    tail -qc 2000 -- "$dir"/slurm.out 2> /dev/null | grep -E 'error|slurmstepd|slurm prolog' | tr -d '\0'
  )"
}

# begin INDEX: takes the lock, then queues the job. Fails if somebody else was faster.
begin() {
  local mine=${TOKENS[$1]} lock=$FOLDER/.${KEYS[$1]}.lock new=$FOLDER/.new.${TOKENS[$1]}
  rm -rf -- "$new"
  # The sbatch script lies in the holder's folder. nemo-run's scripts run in the folder `code` below it.
  if ! said=$({ mkdir -p -- "$new/$mine/code" && printf '%s' "${SUBS[$1]}" > "$new/$mine/run.sub" \
    && printf '%s' "${JOBS[$1]}" > "$new/$mine/code/job.sh" && printf '%s\n' "$me@$here" > "$new/$mine/holder"; } 2>&1); then
    rm -rf -- "$new"
    frame full "${KEYS[$1]}" "$said"
  elif ! mv -T -- "$new" "$lock" 2> /dev/null; then
    rm -rf -- "$new"
    return 1
  elif finished "${KEYS[$1]}" "${OLDS[$1]}"; then
    # Somebody has finished it since we looked.
    set_aside "$lock" "$mine"
    rm -rf -- "$FOLDER/.failed.$mine"
    frame have "${KEYS[$1]}" "$size $sidecar"$'\n'"$text"
  else
    queue_job "$1"
  fi
}

# queue_job INDEX: for a lock of ours. An earlier call may have queued the job and been stopped before it could write down the id.
queue_job() {
  local dir=$FOLDER/.${KEYS[$1]}.lock/${TOKENS[$1]} name first
  name=$(sed -n 's/^#SBATCH --job-name=//p' "$dir/run.sub" | tr -d "'")
  if ! first=$(slurm squeue --noheader --user="$me" --name="$name" -o %i 2> /dev/null); then
    frame unsure "${KEYS[$1]}" "squeue does not answer" # we cannot know whether it was queued before
    return
  fi
  first=$(job_id "$first")
  [ -n "$first" ] || submit "$dir"
  if [ -n "$first" ]; then
    printf '%s\n' "$first" > "$dir/id"
    frame queued "${KEYS[$1]}" "$first"
  elif [[ $said =~ $passing ]]; then
    frame unsure "${KEYS[$1]}" "$said"
  else
    set_aside "$FOLDER/.${KEYS[$1]}.lock" "${TOKENS[$1]}"
    rm -rf -- "$FOLDER/.failed.${TOKENS[$1]}"
    frame refused "${KEYS[$1]}" "$said"
  fi
}

# look INDEX: reports an import, and begins it if nobody has
look() {
  local key=${KEYS[$1]} lock=$FOLDER/.${KEYS[$1]}.lock token
  if finished "$key" "${OLDS[$1]}"; then
    frame have "$key" "$size $sidecar"$'\n'"$text"
  elif [ -n "${WATCHED[$1]}" ] && [ -d "$FOLDER/.failed.${WATCHED[$1]}" ]; then
    failed "$key" "${WATCHED[$1]}"
  elif holder_of "$lock"; then
    look_at_holder "$1"
  elif [ "${STARTS[$1]}" != 1 ]; then
    frame free "$key" ""
  elif ! begin "$1"; then
    if holder_of "$lock"; then look_at_holder "$1"; else frame unsure "$key" "its lock is changing hands"; fi
  fi
}

# look_at_holder INDEX: reports the import that $token holds, or breaks its lock if it is dead
look_at_holder() {
  local dir=$lock/$token holder='' id='' queued beat='' log='' age='' dead=''
  { read -r holder < "$dir/holder"; read -r id < "$dir/id"; } 2> /dev/null
  queued=${job_is[${id:-0}]-}
  if [ -e "$dir/beat" ]; then
    age=$(age "$dir/beat") && { read -r beat < "$dir/beat"; } 2> /dev/null
    log=$(grep -a '\[INFO\]' "$dir/log" 2> /dev/null | tail -n 1 | cut -c1-200)
  fi
  if lives "${queued%%|*}"; then
    :
  elif [ "${holder%%@*}" = "$me" ] && [ -n "$id" ] && [ -n "${was_asked[$id]-}" ]; then
    dead=1 # our own job, and squeue does not show it
  elif [ -n "$age" ]; then
    ((age <= STALE)) || dead=1
  elif [ -n "$id" ] && [ -n "$unasked" ]; then
    frame unsure "$key" "squeue does not answer"
    return
  elif [ -z "$id" ] && [ "$token" = "${TOKENS[$1]}" ]; then
    queue_job "$1" # an earlier call was stopped before it queued the job
    return
  else
    age=$(age "$dir") || age=0
    ((age <= (${#id} ? GIVEN_UP : STALE))) || dead=1
  fi
  if [ -z "$dead" ]; then
    frame at-work "$key" "$token"$'\n'"$holder"$'\n'"$id"$'\n'"$queued"$'\n'"$beat"$'\n'"$log"
  elif set_aside "$lock" "$token"; then
    failed "$key" "$token"
  elif [ -d "$dir" ]; then
    frame stuck "$key" "$holder $lock"
  else
    frame unsure "$key" "its lock is changing hands"
  fi
}

main() {
  local index left
  # shellcheck disable=SC2034 # for age
  RUNDIR=$FOLDER
  # Remove what earlier imports left: a folder cannot be removed while Slurm writes the log in it.
  for left in "$FOLDER"/.done.*; do [ ! -d "$left" ] || rm -rf -- "$left" 2> /dev/null; done
  find "$FOLDER" -maxdepth 1 -name '.failed.*' -mtime +7 -user "$me" -exec rm -rf -- {} + 2> /dev/null
  ask_queue
  for index in "${!KEYS[@]}"; do look "$index"; done
  finish
}
