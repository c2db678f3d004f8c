# shellcheck shell=bash
# What the scripts share that helpers/cluster/connection.py sends to a login node's bash, which reads them from its standard input. bash 4.2 (CentOS 7)
# and coreutils are all they need. They answer in frames. Values of ours come as variables, set before this; none is pasted into a command.
# shellcheck disable=SC2034,SC2153,SC2154 # variables are set by Python, or used by the script that follows

set -u
# What a person's shell on the cluster presets for Slurm's commands would override the job scripts and filter the answers.
for name in ${!SBATCH_@} ${!SQUEUE_@} ${!SACCT_@} ${!SCANCEL_@} ${!SINFO_@} SLURM_TIME_FORMAT; do unset "$name"; done
# Byte counts and Slurm's words in one language; a job gets what was there before.
was_lc_all=${LC_ALL-}
declare +x LC_ALL
LC_ALL=C
# What a run writes on a cluster is for its owner alone; Slurm hands the umask on to the job.
umask 077
printf '@@%s\n' "$TOKEN"

# frame KIND KEY TEXT
frame() { printf '@%s %s %d\n%s\n' "$1" "$2" "${#3}" "$3"; }
finish() { frame end - ""; exit 0; }

# Slurm's commands are where an interactive shell finds them, at least after /etc/profile.
if ! command -v squeue > /dev/null && [ -r /etc/profile ]; then
  set +u
  # shellcheck source=/dev/null
  . /etc/profile > /dev/null 2>&1 < /dev/null
  set -u
fi
if ! command -v squeue > /dev/null || ! command -v sbatch > /dev/null; then
  frame no-slurm - "PATH=$PATH"
  finish
fi

# A client of Slurm hangs for minutes when the controller does not answer. The scripts' own text is on stdin: nobody else may read it.
slurm() { timeout -k 5 "${SLURM_SECONDS:-25}" "$@" < /dev/null; }
me=$(id -un)
here=$(hostname)

# age FILE: seconds since it changed, by the clock of the server that holds it
age() {
  local probe=$RUNDIR/.clock.$$ now changed
  changed=$(stat -c %Y -- "$1" 2> /dev/null) && : > "$probe" || return 1
  now=$(stat -c %Y -- "$probe")
  rm -f -- "$probe"
  echo $((now - changed))
}

# ---- Which jobs are there ------------------------------------------------------------------------------------------------------------
# A task's jobs have its name, which carries the run's id, and lie in its folder (their WorkDir). squeue and sacct are asked once for all.
declare -A job_state=() job_name=() job_waits=()
found_ids=()
# look_up DAYS: fills found_ids, job_state, job_name, and job_waits for those that wait for another job. Fails when squeue does.
look_up() {
  local names id name state dir reason
  names=$(IFS=,; echo "${NAMES[*]}")
  found_ids=()
  job_state=()
  job_name=()
  job_waits=()
  queue=$(slurm squeue --noheader --states=all --user="$me" --name="$names" -o '%i|%T|%j|%Z|%r' 2>&1)
  queue_code=$?
  # Accounting knows the jobs that the controller has forgotten (MinJobAge, five minutes of its own accord).
  account=$(slurm sacct -X -P -n --user="$me" --name="$names" --starttime="now-${1}days" -o 'JobIDRaw,State,JobName,WorkDir' 2>&1)
  account_code=$?
  while IFS='|' read -r id state name dir reason; do
    [[ $id =~ ^[0-9]+$ && -n $name ]] || continue
    belongs "$name" "$dir" || continue
    # Accounting may never have heard of the end of a job: what runs is in the queue.
    if ((queue_code == 0)) && [[ $state =~ ^(RUNNING|COMPLETING|SUSPENDED) && $'\n'$queue != *$'\n'"$id|"* ]]; then continue; fi
    [ -n "${job_state[$id]-}" ] || found_ids+=("$id")
    : "${job_state[$id]:=${state%% *}}"
    job_name[$id]=$name
    [[ $state != PENDING || $reason != Dependency* ]] || job_waits[$id]=1
  done <<< "$queue"$'\n'"$account"
  ((queue_code == 0))
}
# belongs NAME FOLDER: whether a job is ours: it lies in the task's folder. Names alone would do for a run, whose id they carry; what is
# submitted outside of a run has the launcher's own names, the same each time.
declare -A folder_of=()
belongs() {
  local wanted=${folder_of[$1]-}
  [ -z "$wanted" ] || [ -z "$2" ] || [ "$wanted" = "$2" ]
}
# Slurm shows folders by their physical path. A task's own may not be there yet; without the run's folder, names must do.
learn_folders() {
  local index base
  base=$(cd -P -- "$RUNDIR" 2> /dev/null && pwd -P) || return 0
  for index in "${!NAMES[@]}"; do folder_of[${NAMES[index]}]=$base/${DIRS[index]##*/}; done
}
# Of states, those of a job that still holds or wants nodes.
lives() { [[ $1 =~ ^(PENDING|RUNNING|CONFIGURING|COMPLETING|SUSPENDED|REQUEUE|RESIZING|SIGNALING|STAGE_OUT|STOPPED|RESV_DEL_HOLD|SPECIAL_EXIT) ]]; }

# ---- The jobs that were submitted for a task: .submitted in its folder, a line each, `ID`, or `void ID` for one that was taken back ------
# `cancelled`: the chain of the job before it was cancelled by us, which nobody else remembers without accounting.
declare -A is_void=()
read_submitted() { # read_submitted FOLDER: the last job that counts, in $submitted, and whether it was $cancelled; those taken back, in is_void
  local word id
  submitted='' cancelled=''
  while read -r word id; do
    if [ "$word" = void ] && [ -n "$id" ]; then
      is_void[$id]=1
      [ "$submitted" != "$id" ] || submitted=
    elif [ "$word" = cancelled ]; then
      cancelled=1
    elif [[ $word =~ ^[0-9]+$ ]]; then
      submitted=$word cancelled=''
    fi
  done 2> /dev/null < "$1/.submitted"
}
note_submitted() { printf '%s\n' "$2" >> "$1/.submitted"; }
# first_job INDEX: the job of a task that was submitted before, in $first, whoever wrote it down: our record, the queue, accounting, or the
# job itself (.slurm_job_id.list). Empty when there is none.
first_job() {
  local id
  first=
  read_submitted "${DIRS[$1]}"
  if [ -n "$submitted" ]; then
    first=$submitted
    return
  fi
  for id in ${found_ids[@]+"${found_ids[@]}"}; do
    if [ "${job_name[$id]}" = "${NAMES[$1]}" ] && [ -z "${is_void[$id]-}" ]; then
      if [ -z "$first" ] || ((id < first)); then first=$id; fi
    fi
  done
  [ -z "$first" ] || return
  while read -r id; do
    if [[ $id =~ ^[0-9]+$ ]] && [ -z "${is_void[$id]-}" ]; then
      first=$id
      return
    fi
  done 2> /dev/null < "${DIRS[$1]}/.slurm_job_id.list"
}

# cancel_jobs ID…: until squeue says that they are gone; what is left then is in $left. Successors are to go before the jobs that they wait
# for: a job that is cancelled lets its successor start. Half a minute is what KillWait takes of its own accord.
cancel_jobs() {
  local end=$((SECONDS + 60)) id
  left=("$@")
  while :; do
    slurm scancel "${left[@]}" > /dev/null 2>&1
    if still=$(slurm squeue --noheader --user="$me" --jobs="$(IFS=,; echo "${left[*]}")" -o '%i|%T' 2>&1) || [[ $still == *"Invalid job id"* ]]; then
      left=()
      while IFS='|' read -r id state; do
        # A job that is completing has been told to end, and starts nothing any more.
        [[ $id =~ ^[0-9]+$ && $state != COMPLETING ]] && lives "$state" && left+=("$id")
      done <<< "$still"
    fi
    ((${#left[@]})) || return 0
    ((SECONDS < end)) || return 1
    sleep 0.5
  done
}

# ---- One at a time: RUNDIR/.submitting, a folder, which mkdir makes for one alone on any filesystem -------------------------------------
# Who holds it is the name of the file in it, HOST:PID, which a holder touches before each call that may take long. One that died on this
# host, or has not touched it for LOCK_SECONDS, is followed by whoever renames its file to a name of their own: that succeeds for one alone.
LOCK_SECONDS=180
lock() {
  local lock=$RUNDIR/.submitting end=$((SECONDS + LOCK_SECONDS + 60)) file holder seconds
  mine=$lock/$here:$$
  until { mkdir -- "$lock" && : > "$mine"; } 2> /dev/null; do
    holder=''
    for file in "$lock"/*; do [ ! -e "$file" ] || holder=${file##*/}; done
    seconds=$(age "$lock/$holder") || seconds=0
    if [ -z "$holder" ]; then
      # Nobody's yet, or of one that was killed just then.
      ((seconds <= LOCK_SECONDS)) || rmdir -- "$lock" 2> /dev/null
    elif { [ "${holder%:*}" = "$here" ] && ! kill -0 "${holder##*:}" 2> /dev/null; } || ((seconds > LOCK_SECONDS)); then
      touch -c -- "$lock/$holder" 2> /dev/null # a name of ours must not look old to others
      ! mv -T -- "$lock/$holder" "$mine" 2> /dev/null || break
    fi
    if ((SECONDS > end)); then
      frame locked - "${holder/:/ }"
      finish
    fi
    sleep 0.3
  done
  trap 'rm -f -- "$mine"; rmdir -- "$RUNDIR/.submitting" 2> /dev/null' EXIT
}
still_here() { touch -c -- "$mine" 2> /dev/null; }
