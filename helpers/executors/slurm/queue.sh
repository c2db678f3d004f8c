# shellcheck shell=bash
# Needs: cluster/common.sh
# The queue of a partition, a line for each job. PARTITION: its name, or empty for all; MOST: how many lines.
# shellcheck disable=SC2154
main() {
  local options=() said code
  [ -z "$PARTITION" ] || options=(--partition="$PARTITION")
  said=$(slurm squeue --noheader ${options[@]+"${options[@]}"} --sort=-t,-p,i -o '%i|%u|%T|%M|%D|%S|%P|%j|%r' 2>&1)
  code=$?
  frame count - "$(grep -c '^[0-9][^ |]*|' <<< "$said")"
  # Our own jobs first.
  frame queue "$code" "$({ grep -F "|$me|" <<< "$said"; grep -vF "|$me|" <<< "$said"; } | head -n "$MOST")"
  frame who - "$me"
  finish
}
