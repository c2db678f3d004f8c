# shellcheck shell=bash
# Needs: cluster/common.sh images/registry.sh images/cache.sh
# In one round trip: which images the cache folder holds, and which digest each reference has now. All registries are asked at once.
#   JOBDIR                 remote_job_dir: the cache is its folder containers, or containers-USER if we cannot write to that
#   PARTITION              the partition whose nodes' architecture counts; empty: Slurm's default
#   HOSTS REPOS TAGS       for each image of a registry: the host that answers, the name, the tag or digest
#   ARCHIVES               paths of archives, for their size and time
#   MAKE                   1: create the folder if it is missing
#   WHOLE                  1: fetch the index of an image of several platforms even if a sidecar has it
# shellcheck disable=SC2154
umask 027

# ask INDEX: asks for an image of a registry. The answer goes to files in $scratch, since all are asked at once.
ask() {
  local out=$scratch/$1
  ask_registry "$out" "${HOSTS[$1]}" "${REPOS[$1]}" "${TAGS[$1]}"
  if [ "$status" = 200 ] && [[ $type == *index* || $type == *manifest.list* ]] && ! is_known "$digest"; then
    get_manifest "$out" "${HOSTS[$1]}" "${REPOS[$1]}" "$digest"
    [ "$status" != 200 ] || mv -- "$out.body" "$out.index"
  fi
  has_line "${HOSTS[$1]%:*}" && host_line=yes || host_line=no
  has_line "${realm:-.}" && realm_line=yes || realm_line=no
  printf '%s\n' "$status" "$digest" "$type" "$realm" "$host_line" "$realm_line" "$words" > "$out.answer"
}
# is_known DIGEST: whether a sidecar has it
is_known() { [ "$WHOLE" != 1 ] && grep -qsF -e "$1" -- "$own"/*.json "$shared"/*.json; }

main() {
  local index file why node arch
  shared=$JOBDIR/containers
  own=$JOBDIR/containers-$me
  scratch=$(mktemp -d) || finish
  trap 'rm -rf -- "$scratch"' EXIT
  allow_http
  if command -v curl > /dev/null; then
    for index in "${!HOSTS[@]}"; do
      if [[ ${TAGS[index]} == sha256:* ]] && is_known "${TAGS[index]}"; then
        printf '%s\n' 200 "${TAGS[index]}" known '' no no '' > "$scratch/$index.answer"
      else
        ask "$index" < /dev/null &
      fi
    done
  fi
  # While the registries are asked:
  frame who - "$me@$here"
  node=$(slurm sinfo --noheader ${PARTITION:+--partition="$PARTITION"} -o %n 2> /dev/null | grep -m 1 -xE '[A-Za-z0-9._-]+')
  arch=$(slurm scontrol --oneliner show node "$node" 2> /dev/null | grep -oE '\bArch=[^ ]+')
  arch=${arch#Arch=}
  frame arch - "${arch:-$(uname -m)}"
  folder=$shared
  if [ "$MAKE" = 1 ] && ! why=$(make_cache "$shared" 2>&1); then
    frame not-ours - "$shared"$'\n'"$why"
    folder=$own
    why=$(make_cache "$own" 2>&1) || frame no-folder - "$own"$'\n'"$why"
  fi
  frame folder - "$folder"
  show_sidecars "$shared"
  show_sidecars "$own"
  for index in "${!ARCHIVES[@]}"; do
    frame archive "$index" "$(stat -c '%s %Y' -- "${ARCHIVES[index]}" 2> /dev/null)"
  done
  wait
  for index in "${!HOSTS[@]}"; do
    for file in answer index; do
      [ ! -e "$scratch/$index.$file" ] || frame "$file" "$index" "$(tr -d '\0' < "$scratch/$index.$file")"
    done
  done
  finish
}
