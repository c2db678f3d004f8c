# shellcheck shell=bash
# Needs: executors/slurm/asking.sh
# Watches tasks in one session: sends their logs as they grow, and asks Slurm for their states now and then (asking.sh). Ends when its input
# ends, or at a line `stop`.
#   KEYS NAMES DIRS FIRSTS DAYS   as in asking.sh
#   PATTERN                       which logs of a task's folder, such as logs/client-*.log; empty: none
#   SEEN                          KEY/FILE=BYTES: how much of a file was sent before
#   ASK_SECONDS ASK_MOST          the pause between two questions to Slurm: it grows from the first to the second; 0: never ask
# shellcheck disable=SC2154

declare -A size=()  # the bytes of each file that were sent, by KEY/FILE
declare -A first_seen=()
# seen_now NAME: sets $changed if it was not seen before
seen_now() {
  [ -n "${first_seen[$1]-}" ] || changed=1
  first_seen[$1]=1
}

# send INDEX: what was added to its logs since the last time, in pieces of at most 256 KiB: frame `log KEY/FILE/OFFSET`
send() {
  local key=${KEYS[$1]} file name length now
  cd -- "${DIRS[$1]}" 2> /dev/null || return 0
  for file in $PATTERN; do
    [ -f "$file" ] || continue
    name=$key/${file##*/}
    : "${size[$name]:=0}"
    seen_now "$name"
    now=${sizes[${DIRS[$1]}/$file]-}
    [ -n "$now" ] || continue
    if ((now < size[$name])); then size[$name]=0; fi # it was rewritten
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

declare -A sizes=()
send_all() {
  local index files=() bytes path
  [ -n "$PATTERN" ] || return 0
  # The sizes of all logs, from one command.
  sizes=()
  for index in "${!DIRS[@]}"; do
    for path in "${DIRS[index]}"/$PATTERN; do [ ! -f "$path" ] || files+=("$path"); done
  done
  ((${#files[@]})) || return 0
  while read -r bytes path; do sizes[$path]=$bytes; done < <(stat -c '%s %n' -- "${files[@]}" 2> /dev/null)
  for index in "${!KEYS[@]}"; do send "$index"; done
}

main() { # instead of that of asking.sh
  exec 2> /dev/null # warnings about odd bytes in a log would fill the pipe, which nobody reads
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
      [ ! -e "${DIRS[index]}/artifacts/results.yml" ] || seen_now "${KEYS[index]}/results"
    done
    # Something has begun, so ask Slurm again soon.
    if [ -n "$changed" ]; then
      pause=$ASK_SECONDS
      ((next <= SECONDS + pause)) || next=$((SECONDS + pause))
    fi
    if ((SECONDS >= beat)); then
      frame beat - ""
      beat=$((SECONDS + 5))
    fi
    # Pause for 0.3 s. If the connection breaks, the input ends, and so does the pause.
    line=
    read -r -t 0.3 line
    code=$?
    if ((code == 0)); then
      if [ "$line" = stop ]; then
        send_all # what was written before we saw that the job had ended
        finish
      fi
    elif ((code < 128)); then
      exit 0
    fi
  done
}
