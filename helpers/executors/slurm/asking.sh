# shellcheck shell=bash
# Needs: cluster/common.sh
# The states of tasks: asks Slurm once for all of them, and looks into each task's folder. watch.sh asks again and again.
#   KEYS NAMES DIRS FIRSTS    for each task: the key of its frames, its job name, its folder, and its first job by submission.json
#   DAYS                      how far back accounting is asked
#   COUNTING                  the text of executors/answers.py
# shellcheck disable=SC2153,SC2154

LATE_SECONDS=15
COUNT_SECONDS=20
asked=0
declare -A told=()  # tasks whose end was reported: their files will not change any more
declare -A alive=() # job names with a job in the queue that does not just wait for another one
declare -A over=()  # the failed jobs of a job name, the unused successor of which may still be in the queue

ask() {
  local names queue code account id state waits_for name reason index
  names=$(IFS=,; echo "${NAMES[*]}")
  queue=$(slurm squeue --noheader --states=all --user="$me" --name="$names" -o '%i|%T|%S|%M|%E|%Z|%j|%r' 2>&1)
  code=$?
  frame squeue "$code" "$queue"
  account=$(slurm sacct -P -n --user="$me" --name="$names" --starttime="now-${DAYS}days" \
    -o 'JobIDRaw,State,ExitCode,ElapsedRaw,Start,WorkDir,JobName' 2>&1)
  frame sacct $? "$account"
  alive=()
  over=()
  while IFS='|' read -r id state _ _ waits_for _ name reason; do
    if [[ $id =~ ^[0-9]+$ ]]; then
      if lives "$state"; then
        # A successor that waits does not count: it stays in the queue after the task is done, on many clusters for ever.
        [[ $state == PENDING && ($reason == Dependency* || $waits_for == after*) ]] || alive[$name]=1
      elif [[ $'\n'$account != *$'\n'"$id|"* ]]; then
        # If accounting does not know a job, the controller has its exit code for some minutes.
        frame scontrol "$id" "$(slurm scontrol --oneliner show job "$id" 2> /dev/null)"
      fi
      [[ ! $state =~ ^(FAILED|OUT_OF_MEMORY)$ ]] || over[$name]+=" $id"
    fi
  done <<< "$queue"
  asked=$SECONDS
  for index in "${!KEYS[@]}"; do look_at "$index"; done
  # What was read while Slurm did not answer may be from a job that still runs.
  ((code == 0)) || told=()
}

# newest PATTERN [WORDS]: sets $newest to the matching file with the highest job number in its name, skipping files that contain WORDS
newest() {
  newest=
  local file
  for file in $1; do
    [ -e "$file" ] || continue
    [[ -z $newest || ${#file} -ge ${#newest} ]] || continue
    [ -z "${2-}" ] || ! grep -qs -- "$2" "$file" || continue
    newest=$file
  done
}

# count_answers: what the answers of the ended task in this folder carried, counted once by the script COUNTING (executors/answers.py) and
# kept in answers.json. Nothing is printed without a client log, without Python, or after COUNT_SECONDS in one question.
count_answers() {
  local python newest
  newest 'logs/client-*.log'
  [ -n "$newest" ] || return 0
  if [ ! answers.json -nt "$newest" ]; then
    ((SECONDS - asked < COUNT_SECONDS)) || return 0
    python=$(command -v python3) || python=/usr/libexec/platform-python
    if timeout "$COUNT_SECONDS" "$python" -I -c "$COUNTING" artifacts > ".answers.$$"; then mv -f ".answers.$$" answers.json; fi
    rm -f ".answers.$$"
  fi 2> /dev/null
  [ ! -r answers.json ] || printf %s "$(< answers.json)"
}

# look_at INDEX: what the task's folder holds, in lines NAME VALUE. A missing file has no line.
look_at() {
  local key=${KEYS[$1]} dir=${DIRS[$1]} name=${NAMES[$1]} lines='' value=() number file kind newest late='' id
  if [ -n "${alive[$name]-}" ]; then
    unset "told[$key]"
  elif [ -n "${told[$key]-}" ]; then
    return 0
  fi
  # Starts no command for a task that is alive: for a hundred of them that would cost half a second.
  if ! cd -P -- "$dir" 2> /dev/null; then
    frame task "$key" "missing $dir"
    return 0
  fi
  read_submitted .
  lines+="folder $PWD"$'\n'
  lines+="first ${submitted:-${FIRSTS[$1]}}"$'\n'
  [ -z "$cancelled" ] || lines+="cancelled yes"$'\n'
  if [ -r .slurm_job_id.list ]; then
    mapfile -t value < .slurm_job_id.list
    lines+="list ${value[*]-}"$'\n'
  fi
  if [ -r artifacts/progress ]; then
    read -r number < artifacts/progress
    lines+="progress $number"$'\n'
  fi
  if [ -e artifacts/results.yml ]; then
    lines+="results yes"$'\n'
  elif [ -z "${alive[$name]-}" ] || [ -n "${over[$name]-}" ]; then
    # A file that a node has just written may not be visible here yet. Creating a file makes an NFS client read the folder again, and
    # opening a file makes it read that file's attributes again.
    { : > "artifacts/.look.$$"; rm -f "artifacts/.look.$$"; } 2> /dev/null
    newest 'logs/slurm-*.log'
    [ -z "$newest" ] || { : < "$newest"; } 2> /dev/null
    if [ -n "$newest" ] && number=$(RUNDIR=. age "$newest") && ((number < LATE_SECONDS)); then late=1; lines+="late yes"$'\n'; fi
  fi
  for kind in client server slurm; do
    newest "logs/$kind-*.log"
    # After a failed job its successor starts, sees that, and says so in its own log: the cause is in the log before.
    if [ "$kind" = slurm ] && [ -z "${alive[$name]-}" ]; then newest "logs/slurm-*.log" 'state\. EXIT!$'; fi
    # A successor that has just started has not said so yet. The first job that failed since the task was submitted counts.
    number=
    for id in ${over[$name]-}; do
      if [ "$kind" = slurm ] && [ -e "logs/slurm-$id.log" ] && ((id >= ${submitted:-0} && (!${#number} || id < number))); then number=$id; fi
    done
    [ -z "$number" ] || newest=logs/slurm-$number.log
    [ -z "$newest" ] || lines+="$kind $newest"$'\n'
  done
  frame task "$key" "$lines"
  if [ -z "${alive[$name]-}" ] || [ -n "${over[$name]-}" ]; then
    # 1 MiB: the largest results.yml of the catalogue, with a score for each subject, has a tenth of that.
    [ ! -e artifacts/results.yml ] || frame results "$key" "$(head -c 1048576 artifacts/results.yml)"
    # $newest is still the slurm log.
    for kind in slurm client server; do
      [ "$kind" = slurm ] || newest "logs/$kind-*.log"
      [ -z "$newest" ] || frame "tail-$kind" "$key" "$(tail -c 8000 -- "$newest" | tr -d '\0')"
    done
    [ -n "${alive[$name]-}" ] || frame answers "$key" "$(count_answers)"
    [ -n "$late" ] || [ -n "${alive[$name]-}" ] || told[$key]=1
  fi
  return 0
}

main() {
  ask
  finish
}
