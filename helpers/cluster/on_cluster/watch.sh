# shellcheck shell=bash
# Stays with tasks, in one session: their logs as they grow, and where they stand, asked of Slurm now and then (asking.sh). Ends when its
# input does, or at a line `stop`. A line `soon` has Slurm asked at once.
#   KEYS NAMES DIRS FIRSTS DAYS   as in asking.sh
#   PATTERN                       which logs of a task's folder: logs/client-*.log; empty: none
#   SEEN                          FILE=BYTES: how much of a file was shown before, by KEY/FILE
#   ASK_SECONDS ASK_MOST          Slurm is asked after so many seconds, then less and less often, up to this; 0: never
# shellcheck disable=SC2154

declare -A size=()  # of each file, by KEY/FILE: the bytes that were sent
declare -A first_seen=()

# send INDEX: what came to its logs since the last time, in pieces of at most 256 KiB: frame `log KEY/FILE/OFFSET`
send() {
  local key=${KEYS[$1]} file name length now
  cd -- "${DIRS[$1]}" 2> /dev/null || return 0
  for file in $PATTERN; do
    [ -f "$file" ] || continue
    name=$key/${file##*/}
    if [ -z "${size[$name]-}" ]; then size[$name]=0; fi
    if [ -z "${first_seen[$name]-}" ]; then
      first_seen[$name]=1
      changed=1
    fi
    now=${sizes[${DIRS[$1]}/$file]-}
    [ -n "$now" ] || continue
    if ((now < size[$name])); then size[$name]=0; fi # written anew
    while ((size[$name] < now)); do
      length=$((now - size[$name]))
      ((length <= 262144)) || length=262144
      piece=$(tail -c "+$((size[$name] + 1))" -- "$file" | head -c "$length" | tr '\0' '?'; echo x)
      piece=${piece%x}
      [ -n "$piece" ] || break
      frame log "$name/${size[$name]}" "$piece"
      size[$name]=$((size[$name] + ${#piece}))
    done
  done
}

# The sizes of all logs, with one command for all tasks.
declare -A sizes=()
measure() {
  local index files=() bytes path
  sizes=()
  for index in "${!DIRS[@]}"; do
    for path in "${DIRS[index]}"/$PATTERN; do [ ! -f "$path" ] || files+=("$path"); done
  done
  ((${#files[@]})) || return 0
  while read -r bytes path; do sizes[$path]=$bytes; done < <(stat -c '%s %n' -- "${files[@]}" 2> /dev/null)
}

send_all() {
  local index
  [ -n "$PATTERN" ] || return 0
  measure
  for index in "${!KEYS[@]}"; do send "$index"; done
}

main() {
  exec 2> /dev/null # a warning on a log with odd bytes would fill the pipe that nobody reads
  local index entry next=0 pause=$ASK_SECONDS beat=0 line code changed
  for entry in ${SEEN[@]+"${SEEN[@]}"}; do size[${entry%=*}]=${entry##*=}; done
  shopt -s nullglob
  while :; do
    changed=
    send_all
    if ((ASK_SECONDS && SECONDS >= next)); then
      ask
      frame asked - ""
      next=$((SECONDS + pause))
      ((pause >= ASK_MOST)) || pause=$((pause + 1 + pause / 4))
    fi
    for index in "${!KEYS[@]}"; do
      if [ -z "${first_seen[${KEYS[index]}/results]-}" ] && [ -e "${DIRS[index]}/artifacts/results.yml" ]; then
        first_seen[${KEYS[index]}/results]=1
        changed=1
      fi
    done
    # Something began: Slurm is worth asking again soon.
    if [ -n "$changed" ]; then
      pause=$ASK_SECONDS
      ((next <= SECONDS + pause)) || next=$((SECONDS + pause))
    fi
    if ((SECONDS >= beat)); then
      frame beat - ""
      beat=$((SECONDS + 5))
    fi
    # The pause between two looks: 0.3 s. It ends at once when the line is cut, for then its input ends.
    line=
    read -r -t 0.3 line
    code=$?
    if ((code == 0)); then
      case $line in
        stop)
          send_all # what came before the job was seen to have ended
          finish
          ;;
        soon) next=0 pause=$ASK_SECONDS ;;
      esac
    elif ((code < 128)); then
      exit 0
    fi
  done
}
