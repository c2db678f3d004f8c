# shellcheck shell=bash
# What all scripts for a login node share. helpers/cluster/scripts.py sends them to a bash there, on its standard input. They need no more
# than bash 4.2 (CentOS 7) and coreutils, and answer in frames. Our values come as variables before this; none is pasted into a command.
# shellcheck disable=SC2034,SC2153,SC2154 # variables are set by Python, or used by the script that follows

set -u
# A person's shell on the cluster may set defaults for Slurm's commands, which would override the job scripts and filter the answers.
for name in ${!SBATCH_@} ${!SQUEUE_@} ${!SACCT_@} ${!SCANCEL_@} ${!SINFO_@} SLURM_TIME_FORMAT; do unset "$name"; done
# We count bytes and read Slurm's words, so both must be in one language. Jobs get the setting that was there before.
was_lc_all=${LC_ALL-}
declare +x LC_ALL
LC_ALL=C
# Only the owner may read what a run writes on a cluster. Slurm passes the umask on to the job.
umask 077
printf '@@%s\n' "$TOKEN"

# frame KIND KEY TEXT
frame() { printf '@%s %s %d\n%s\n' "$1" "$2" "${#3}" "$3"; }
# finish [KIND KEY TEXT]: ends the script; the frame, if there is one, is its last word
finish() { (($# == 0)) || frame "$@"; frame end - ""; exit 0; }

# Some clusters put Slurm's commands on PATH in /etc/profile, which only a login shell reads.
if ! command -v squeue > /dev/null && [ -r /etc/profile ]; then
  set +u
  # shellcheck source=/dev/null
  . /etc/profile > /dev/null 2>&1 < /dev/null
  set -u
fi
if ! command -v squeue > /dev/null || ! command -v sbatch > /dev/null; then
  finish no-slurm - "PATH=$PATH"
fi

# Slurm's commands hang for minutes if the controller does not answer. They must not read stdin, which holds the script itself.
slurm() { timeout -k 5 "${SLURM_SECONDS:-25}" "$@" < /dev/null; }
# job_id TEXT: prints the job id in an answer of Slurm: its last line that is an id and nothing else, except that sbatch may add `;CLUSTER`.
# Wrappers and plugins of a cluster print notices before and after it.
job_id() { sed -nE 's/^([0-9]+)(;[^;[:space:]]+)?[[:space:]]*$/\1/p' <<< "$1" | tail -n 1; }
me=$(id -un)
here=$(hostname)

# age FILE: seconds since it changed, by the clock of the file server
age() {
  local probe=$RUNDIR/.clock.$$ now changed
  changed=$(stat -c %Y -- "$1" 2> /dev/null) && : > "$probe" || return 1
  now=$(stat -c %Y -- "$probe")
  rm -f -- "$probe"
  echo $((now - changed))
}

# ---- Which jobs exist ----------------------------------------------------------------------------------------------------------------
# The jobs of a task have its name, which contains the run's id, and its folder as WorkDir. One squeue and one sacct ask for all tasks.
declare -A job_state=() job_name=() job_waits=()
found_ids=()
# look_up DAYS: fills found_ids, job_state, job_name, and job_waits (of jobs that wait for another one). Fails if squeue fails.
look_up() {
  local names id name state dir reason
  names=$(IFS=,; echo "${NAMES[*]}")
  found_ids=() job_state=() job_name=() job_waits=()
  queue=$(slurm squeue --noheader --states=all --user="$me" --name="$names" -o '%i|%T|%j|%Z|%r' 2>&1)
  queue_code=$?
  # Accounting knows the jobs that the controller has forgotten (MinJobAge, five minutes by default).
  account=$(slurm sacct -X -P -n --user="$me" --name="$names" --starttime="now-${1}days" -o 'JobIDRaw,State,JobName,WorkDir' 2>&1)
  account_code=$?
  while IFS='|' read -r id state name dir reason; do
    [[ $id =~ ^[0-9]+$ && -n $name ]] || continue
    belongs "$name" "$dir" || continue
    # Accounting may never have heard that a job ended: a job that runs is in the queue.
    if ((queue_code == 0)) && [[ $state =~ ^(RUNNING|COMPLETING|SUSPENDED) && $'\n'$queue != *$'\n'"$id|"* ]]; then continue; fi
    [ -n "${job_state[$id]-}" ] || found_ids+=("$id")
    : "${job_state[$id]:=${state%% *}}"
    job_name[$id]=$name
    [[ $state != PENDING || $reason != Dependency* ]] || job_waits[$id]=1
  done <<< "$queue"$'\n'"$account"
  ((queue_code == 0))
}
# belongs NAME FOLDER: whether a job is ours, which means that its folder is the task's. In a run the name would do, since it contains the
# run's id. Outside a run, names are the launcher's own, and the same each time.
declare -A folder_of=()
belongs() {
  local wanted=${folder_of[$1]-}
  [ -z "$wanted" ] || [ -z "$2" ] || [ "$wanted" = "$2" ]
}
# Slurm shows folders by their physical path. A task's folder may not exist yet; if the run's folder does not, only names are compared.
learn_folders() {
  local index base
  base=$(cd -P -- "$RUNDIR" 2> /dev/null && pwd -P) || return 0
  for index in "${!NAMES[@]}"; do folder_of[${NAMES[index]}]=$base/${DIRS[index]##*/}; done
}
# lives STATE: whether a job in this state holds nodes or waits for them
lives() { [[ $1 =~ ^(PENDING|RUNNING|CONFIGURING|COMPLETING|SUSPENDED|REQUEUE|RESIZING|SIGNALING|STAGE_OUT|STOPPED|RESV_DEL_HOLD|SPECIAL_EXIT) ]]; }

# ---- Which jobs were submitted: .submitted in a task's folder, with a line for each, `ID`, or `void ID` for one that was taken back -------
# A line `cancelled` says that we cancelled the chain of the job before it. Without accounting nobody else remembers that.
declare -A is_void=()
read_submitted() { # read_submitted FOLDER: sets $submitted to the last job that counts, $cancelled, and is_void for jobs taken back
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
# take_back INDEX ID: from now on this job is not mistaken for the task's job, even if the script ends here
take_back() {
  note_submitted "${DIRS[$1]}" "void $2"
  # shellcheck disable=SC2004 # an associative array
  is_void[$2]=1
}
# first_job INDEX: sets $first to the job that was submitted for a task before, by our record, the queue, accounting, or the job itself
# (.slurm_job_id.list). Empty if there is none.
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

# cancel_jobs ID…: until squeue no longer shows them; sets $left to those that are still there after a minute. List successors before the
# jobs that they wait for, since the end of a cancelled job starts its successor. KillWait alone takes half a minute by default.
cancel_jobs() {
  local end=$((SECONDS + 60)) id
  left=("$@")
  while :; do
    slurm scancel "${left[@]}" > /dev/null 2>&1
    if still=$(slurm squeue --noheader --user="$me" --jobs="$(IFS=,; echo "${left[*]}")" -o '%i|%T' 2>&1) || [[ $still == *"Invalid job id"* ]]; then
      left=()
      while IFS='|' read -r id state; do
        # A job that is completing starts nothing any more.
        [[ $id =~ ^[0-9]+$ && $state != COMPLETING ]] && lives "$state" && left+=("$id")
      done <<< "$still"
    fi
    ((${#left[@]})) || return 0
    ((SECONDS < end)) || return 1
    sleep 0.5
  done
}

# ---- One script at a time: the folder RUNDIR/.submitting, since mkdir succeeds for only one on any filesystem ----------------------------
# A file in it, HOST:PID, names the holder, who touches it before each call that may take long. If the holder died on this host, or has not
# touched its file for LOCK_SECONDS, another script takes over by renaming the file to its own name, which also succeeds for only one.
LOCK_SECONDS=180
lock() {
  local lock=$RUNDIR/.submitting end=$((SECONDS + LOCK_SECONDS + 60)) file holder seconds
  mine=$lock/$here:$$
  until { mkdir -- "$lock" && : > "$mine"; } 2> /dev/null; do
    holder=''
    for file in "$lock"/*; do [ ! -e "$file" ] || holder=${file##*/}; done
    seconds=$(age "$lock/$holder") || seconds=0
    if [ -z "$holder" ]; then
      # Its holder is about to create its file, or was killed just then.
      ((seconds <= LOCK_SECONDS)) || rmdir -- "$lock" 2> /dev/null
    elif { [ "${holder%:*}" = "$here" ] && ! kill -0 "${holder##*:}" 2> /dev/null; } || ((seconds > LOCK_SECONDS)); then
      touch -c -- "$lock/$holder" 2> /dev/null # after the rename it must not look old to others
      ! mv -T -- "$lock/$holder" "$mine" 2> /dev/null || break
    fi
    ((SECONDS <= end)) || finish locked - "${holder/:/ }"
    sleep 0.3
  done
  trap 'rm -f -- "$mine"; rmdir -- "$RUNDIR/.submitting" 2> /dev/null' EXIT
}
still_here() { touch -c -- "$mine" 2> /dev/null; }
