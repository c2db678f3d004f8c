# shellcheck shell=bash
# Needs: cluster/common.sh images/cache.sh
# Lists the cache of squashed images, or removes files from it.
#   JOBDIR     as in inspect.sh
#   REMOVE     paths of files in the cache folders; empty: only list
# shellcheck disable=SC2154

list_all() {
  local file lock
  show_sidecars "$1"
  for file in "$1"/*.sqsh; do
    [ ! -e "$file" ] || frame file - "$(stat -c '%s %Y' -- "$file") $file"
  done
  # Layers that enroot keeps between imports, and what failed imports left behind.
  for file in "$1/.layers-$me" "$1"/.failed.* "$1"/.done.*; do
    if [ -d "$file" ] && [ -O "$file" ]; then frame left - "$(du -sk -- "$file" 2> /dev/null | cut -f1) $(stat -c %Y -- "$file") $file"; fi
  done
  for lock in "$1"/.*.lock/*/; do
    lock=${lock%/*/}
    [ ! -d "$lock" ] || frame lock - "${lock##*/.}"
  done
}

main() {
  local path said
  shared=$JOBDIR/containers
  own=$JOBDIR/containers-$me
  if ((${#REMOVE[@]})); then
    for path in ${REMOVE[@]+"${REMOVE[@]}"}; do
      [[ ${path%/*} == "$shared" || ${path%/*} == "$own" ]] && [[ ${path##*/} =~ ^(\.layers-|\.failed\.|\.done\.).|\.(sqsh|json)$ ]] || continue
      said=$(rm -rf -- "$path" 2>&1) || frame kept - "$path"$'\n'"$said"
    done
  else
    list_all "$shared"
    list_all "$own"
  fi
  finish
}
