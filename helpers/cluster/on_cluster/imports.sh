# shellcheck shell=bash
# Where the imports of some images stand, and begins those that nobody has begun. Given again at any time, it begins none twice.
#   FOLDER            the cache folder
#   KEYS STEMS OLDS   of each image: its 12 hex digits, its file's name, and the imports that do not count, since it is to be made anew
#   TOKENS            the name under which we would hold its lock; the job's name ends in it
#   STARTS            1: it is begun if nobody is at it
#   WATCHED           whose import was seen at work the last time, or empty
#   SUBS JOBS         of those that may be begun: the sbatch script, and what it runs (import_job.sh)
#   STALE GIVEN_UP    a job that has not beaten for so many seconds is dead; one queued for so long that squeue does not show is given up
# shellcheck disable=SC2154
umask 027

declare -A job_is=() was_asked=()
unasked=
# The jobs of all locks in one question. Of another user's squeue may show nothing, which says nothing.
ask_queue() {
  local lock ids=() id state reason
  for lock in "$FOLDER"/.*.lock/*/id; do
    { read -r id < "$lock"; } 2> /dev/null && [[ $id =~ ^[0-9]+$ ]] || continue
    ids+=("$id")
    was_asked[$id]=1
  done
  ((${#ids[@]})) || return 0
  # An id that Slurm has forgotten makes squeue fail, when it is the only one.
  queue=$(slurm squeue --noheader --states=all --jobs="$(IFS=,; echo "${ids[*]}")" -o '%i|%T|%r' 2>&1) \
    || [[ $queue == *"Invalid job id"* ]] || { was_asked=() unasked=1; }
  while IFS='|' read -r id state reason; do
    [[ ! $id =~ ^[0-9]+$ ]] || job_is[$id]="$state|$reason"
  done <<< "$queue"
}

# holder_of LOCK: the token of its holder, or empty, as $token
holder_of() {
  local path
  token=
  for path in "$1"/*; do [ ! -d "$path" ] || token=${path##*/}; done
}

# ending ID: what Slurm says of how a job ended, as $states, its own state first. Fails while the job is still about to end, and while that
# could not be asked.
ending() {
  states=
  [ -n "$1" ] || return 0
  if ! states=$(slurm squeue --noheader --states=all --jobs="$1" -o %T 2>&1); then
    [[ $states == *"Invalid job id"* ]] || return 1
    states=
  fi
  ! lives "${states:-gone}" || return 1
  # Of its steps one may have been killed for memory, of which the job itself says FAILED.
  states+=" $(slurm sacct -X -P -n --jobs="$1" -o State 2> /dev/null | cut -d' ' -f1)"
  states+=" $(slurm sacct -P -n --jobs="$1" -o State 2> /dev/null | grep -o OUT_OF_MEMORY | head -n 1)"
  states=${states//$'\n'/ }
}

# failed KEY TOKEN: an import that has failed: its job, how that ended, the verdict of import_job.sh, and the end of its log
failed() {
  local dir=$FOLDER/.failed.$2 id='' verdict='' states
  [ ! -d "$dir/$2" ] || dir=$dir/$2
  { read -r id < "$dir/id"; } 2> /dev/null
  { read -r verdict < "$dir/verdict"; } 2> /dev/null
  if ! ending "$id"; then
    frame ending "$1" "$2"$'\n'"$id"
    return 0
  fi
  frame failed "$1" "$2"$'\n'"$id"$'\n'"$states"$'\n'"$verdict"$'\n'"$(cat "$dir/enroot" 2> /dev/null)"$'\n'"$(
    tail -c 6000 -- "$dir/log" 2> /dev/null | tr '\r' '\n' | tr -d '\0'
    tail -qc 2000 -- "$dir"/slurm.out 2> /dev/null | grep -E 'error|slurmstepd' | tr -d '\0'
  )"
}

# begin INDEX: take the lock, then queue the job. Fails when somebody else was faster.
begin() {
  local mine=${TOKENS[$1]} lock=$FOLDER/.${KEYS[$1]}.lock new=$FOLDER/.new.${TOKENS[$1]}
  rm -rf -- "$new"
  # sbatch reads its script, and the job its own, in the holder's folder; nemo-run's scripts run in its folder code.
  if ! said=$({ mkdir -p -- "$new/$mine/code" && printf '%s' "${SUBS[$1]}" > "$new/$mine/run.sub" \
    && printf '%s' "${JOBS[$1]}" > "$new/$mine/code/job.sh" && printf '%s\n' "$me@$here" > "$new/$mine/holder"; } 2>&1); then
    rm -rf -- "$new"
    frame full "${KEYS[$1]}" "$said"
    return 0
  fi
  if ! mv -T -- "$new" "$lock" 2> /dev/null; then
    rm -rf -- "$new"
    return 1
  fi
  # Somebody may have finished since it was looked for.
  if finished "${KEYS[$1]}" "${OLDS[$1]}"; then
    set_aside "$lock" "$mine"
    rm -rf -- "$FOLDER/.failed.$mine"
    frame have "${KEYS[$1]}" "$size $sidecar"$'\n'"$text"
    return 0
  fi
  queue_job "$1"
}

# queue_job INDEX: for a lock that is ours. The job may have been queued before by one who could not write that down.
queue_job() {
  local dir=$FOLDER/.${KEYS[$1]}.lock/${TOKENS[$1]} name id
  name=$(sed -n 's/^#SBATCH --job-name=//p' "$dir/run.sub" | tr -d "'")
  if ! id=$(slurm squeue --noheader --user="$me" --name="$name" -o %i 2> /dev/null); then
    frame unsure "${KEYS[$1]}" "squeue does not answer" # whether it was queued before is not known
    return 0
  fi
  id=${id%%$'\n'*}
  if [ -z "$id" ]; then
    said=$(cd -- "$dir" && {
      [ -z "$was_lc_all" ] || export LC_ALL=$was_lc_all
      SLURM_SECONDS=60 slurm sbatch --parsable run.sub 2>&1
    })
    id=$(grep -oE '^[0-9]+' <<< "$said" | tail -n 1)
  fi
  if [ -n "$id" ]; then
    printf '%s\n' "$id" > "$dir/id"
    frame queued "${KEYS[$1]}" "$id"
  elif [[ $said =~ $passing ]]; then
    frame unsure "${KEYS[$1]}" "$said"
  else
    set_aside "$FOLDER/.${KEYS[$1]}.lock" "${TOKENS[$1]}"
    rm -rf -- "$FOLDER/.failed.${TOKENS[$1]}"
    frame refused "${KEYS[$1]}" "$said"
  fi
}

# look INDEX
look() {
  local key=${KEYS[$1]} lock=$FOLDER/.${KEYS[$1]}.lock token holder='' id='' beat='' log='' age='' dead=''
  if finished "$key" "${OLDS[$1]}"; then
    frame have "$key" "$size $sidecar"$'\n'"$text"
    return 0
  fi
  if [ -n "${WATCHED[$1]}" ] && [ -d "$FOLDER/.failed.${WATCHED[$1]}" ]; then
    failed "$key" "${WATCHED[$1]}"
    return 0
  fi
  holder_of "$lock"
  if [ -z "$token" ]; then
    if [ "${STARTS[$1]}" != 1 ]; then
      frame free "$key" ""
      return 0
    fi
    begin "$1" && return 0
    holder_of "$lock"
    if [ -z "$token" ]; then
      frame unsure "$key" "its lock is changing hands"
      return 0
    fi
  fi
  { read -r holder < "$lock/$token/holder"; read -r id < "$lock/$token/id"; } 2> /dev/null
  if [ -e "$lock/$token/beat" ]; then
    age=$(age "$lock/$token/beat") && { read -r beat < "$lock/$token/beat"; } 2> /dev/null
    log=$(grep -a '\[INFO\]' "$lock/$token/log" 2> /dev/null | tail -n 1 | cut -c1-200)
  fi
  if [ -n "${job_is[${id:-0}]-}" ] && lives "${job_is[$id]%%|*}"; then
    :
  elif [ "${holder%%@*}" = "$me" ] && [ -n "$id" ] && [ -n "${was_asked[$id]-}" ]; then
    dead=1 # a job of ours that squeue does not show
  elif [ -n "$age" ]; then
    ((age <= STALE)) || dead=1
  elif [ -n "$id" ] && [ -n "$unasked" ]; then
    frame unsure "$key" "squeue does not answer"
    return 0
  elif [ -z "$id" ] && [ "$token" = "${TOKENS[$1]}" ]; then
    queue_job "$1" # we were cut off before it was queued
    return 0
  else
    age=$(age "$lock/$token") || age=0
    ((age <= (${#id} ? GIVEN_UP : STALE))) || dead=1
    age=
  fi
  if [ -n "$dead" ]; then
    if set_aside "$lock" "$token"; then
      failed "$key" "$token"
    elif [ -d "$lock/$token" ]; then
      frame stuck "$key" "$holder $lock"
    else
      frame unsure "$key" "its lock is changing hands"
    fi
    return 0
  fi
  frame at-work "$key" "$token"$'\n'"$holder"$'\n'"$id"$'\n'"${job_is[${id:-0}]-}"$'\n'"$beat"$'\n'"$log"
}

main() {
  local index left
  # shellcheck disable=SC2034 # for age
  RUNDIR=$FOLDER
  # What failed, or could not be removed while Slurm still wrote its log there.
  for left in "$FOLDER"/.done.*; do [ ! -d "$left" ] || rm -rf -- "$left" 2> /dev/null; done
  find "$FOLDER" -maxdepth 1 -name '.failed.*' -mtime +7 -user "$me" -exec rm -rf -- {} + 2> /dev/null
  ask_queue
  for index in "${!KEYS[@]}"; do look "$index"; done
  finish
}
