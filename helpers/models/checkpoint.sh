# shellcheck shell=bash
# Needs: cluster/common.sh
# What a checkpoint holds that an evaluation depends on: which of its FOLDERS has one of the tokenizer files NAMES, and its config.json.
#   CHECKPOINT         its folder
#   FOLDERS NAMES      folders below it ("." is itself), and the names of files
# shellcheck disable=SC2154
main() {
  local folder name
  if [ ! -e "$CHECKPOINT" ]; then
    frame missing - "$CHECKPOINT"
    finish
  fi
  for folder in ${FOLDERS[@]+"${FOLDERS[@]}"}; do
    for name in ${NAMES[@]+"${NAMES[@]}"}; do
      if [ -r "$CHECKPOINT/$folder/$name" ]; then
        frame tokenizer - "$folder"
        break 2
      fi
    done
  done
  # A config.json has a few thousand bytes.
  [ ! -f "$CHECKPOINT/config.json" ] || frame config - "$(head -c 1000000 -- "$CHECKPOINT/config.json" 2> /dev/null)"
  finish
}
