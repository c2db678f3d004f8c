#!/usr/bin/env bash
# Stops the test cluster: its jobs, nodes and daemons, each by its own pid file. The bed's folder, and what jobs wrote, stay.
#   make cluster-down               the same as
#   tests/cluster/down.sh           1 to 2 s
#   tests/cluster/down.sh --purge   removes the bed's folder too
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"
[ "$(id -u)" = 0 ] || die "the test cluster runs as root: sudo --preserve-env=BED $0, or make cluster-down as root"
alone "$@"

rm -f "$BED/run/up"
# Faults that tests left behind (delaying proxies and the like keep a pid file too).
daemons=()
for file in "$BED"/run/*.pid; do
  name=${file##*/}
  name=${name%.pid}
  [[ $name == slurmd-* || $name == *.own ]] || daemons+=("$name")
done
stop() { # stop SIGNAL SECONDS NAME…: all at once
  local signal=$1 end=$((SECONDS + $2)) name pid
  shift 2
  local -A pids=()
  for name in "$@"; do
    if pid=$(pid_of "$name"); then
      pids[$name]=$pid
      kill "-$signal" "$pid" 2> /dev/null || true
    fi
  done
  for name in "${!pids[@]}"; do
    until ended "${pids[$name]}" || [ "$SECONDS" -ge "$end" ]; do sleep 0.02; done
    if ! ended "${pids[$name]}"; then
      kill -KILL "${pids[$name]}" 2> /dev/null || true
      until ended "${pids[$name]}"; do sleep 0.02; done
      [ "$signal" = KILL ] || say "$name did not stop within seconds: killed"
    fi
    say "stopped $name"
  done
  for name in "$@"; do rm -f "$BED/run/$name.pid"; done
}
# The queue is emptied while the controller can still say so to accounting: the next bed begins without jobs.
if alive slurmctld && timeout 10 squeue -h > /dev/null 2>&1; then
  timeout 10 squeue -h -r -o %i | xargs -r timeout 20 scancel --signal=KILL --full 2> /dev/null || true
  timeout 10 squeue -h -r -o %i | xargs -r timeout 20 scancel 2> /dev/null || true
  no_jobs() { [ -z "$(timeout 5 squeue -h)" ]; }
  wait_for 4 no_jobs || say "jobs that would not end are lost"
fi
# A killed node takes its jobs, containers and network with it. Login sessions end with the login node.
nodes=()
others=()
for name in "${daemons[@]}"; do
  case $name in
    n[0-9]*) nodes+=("$name") ;;
    slurmdbd | mariadbd) ;;
    *) others+=("$name") ;;
  esac
done
[ ${#nodes[@]} = 0 ] || stop KILL 10 "${nodes[@]}"
if sshd=$(pid_of sshd); then
  for session in $(pgrep -P "$sshd"); do
    sessions+=("$session")
    # shellcheck disable=SC2207
    sessions+=($(pgrep -P "$session" || true))
  done
fi
[ ${#others[@]} = 0 ] || stop TERM 8 "${others[@]}"
[ -z "${sessions[*]:-}" ] || kill "${sessions[@]}" 2> /dev/null || true
stop TERM 8 slurmdbd
stop TERM 8 mariadbd
if ip link show "$bridge" > /dev/null 2>&1; then ip link del "$bridge"; fi
for leg in $(ip -o link | grep -o "$bridge-[0-9]*" | sort -u); do ip link del "$leg" 2> /dev/null || true; done
for folder in small readonly; do if mountpoint -q "$BED/$folder"; then umount -l "$BED/$folder"; fi; done
rm -f "$BED"/run/*.pid "$BED"/faults/*
if [ "$B" != "$BED" ]; then
  rm -f "$B"
  rmdir "${B%/*}" 2> /dev/null || true # another bed's link may be there
fi
if [ "${1:-}" = --purge ]; then rm -rf "$BED"; fi
say "the cluster is down"
