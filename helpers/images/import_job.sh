# shellcheck shell=bash
# Needs: images/registry.sh images/cache.sh
# One import, as a Slurm job on a compute node. It runs in the folder `code` of the lock's holder (see cache.sh).
#   FOLDER KEY STEM OLD TOKEN    as in imports.sh
#   KIND PLACE                   registry, dockerd, podman, docker-archive or oci-archive; an archive's path
#   FORM3 FORM4                  the reference for enroot 3 and for enroot 4; empty: that one cannot import it
#   HOST REPO TAG DIGEST         of a registry image; DIGEST: of this platform, empty if it is unknown
#   INDEX                        the digest of the tag itself
#   REFERENCE CANONICAL PLATFORM MACHINE BY   for the sidecar; MACHINE: the platform as `uname -m` prints it
# shellcheck disable=SC2153,SC2154
set -u
LC_ALL=C
umask 027
work=$(cd -P -- .. && pwd) || exit 1
lock=${work%/*}
me=$(id -un)
began=$SECONDS
log=$work/log

stop() {
  trap - EXIT TERM INT
  # shellcheck disable=SC2086 # either may not be running
  kill ${beating-} ${worker-} 2> /dev/null
  cd /
}
# verdict WORD…: writes down why the import failed, frees the lock, and exits
verdict() {
  stop
  printf '%s\n' "$*" > "$work/verdict" 2> /dev/null
  echo "import failed: $*"
  set_aside "$lock" "$TOKEN"
  exit 1
}
release() {
  stop
  mv -T -- "$work" "$FOLDER/.done.$TOKEN" && rmdir -- "$lock"
  rm -rf -- "$FOLDER/.done.$TOKEN" 2> /dev/null
  exit 0
}

# Writes every five seconds, at first every second, how many bytes there are and for how long the import has been running. If the lock was
# taken, it ends the import. It does not count layers that are being unpacked (folders named by a number, or rootfs): 200,000 files or more.
beat() {
  local bytes pause=1
  while [ -d "$work" ]; do
    bytes=$(find "$work/tmp" "$work/image.sqsh" "$layers" -maxdepth 6 -name '[0-9]' -prune -o -name '[0-9][0-9]' -prune -o -name rootfs -prune \
      -o -type f -newer "$work/begun" -printf '%s\n' 2> /dev/null | awk '{sum += $1} END {printf "%d", sum}')
    printf '%s %s\n' "$bytes" "$((SECONDS - began))" > "$work/.beat" 2> /dev/null && mv -f -- "$work/.beat" "$work/beat" 2> /dev/null
    ((SECONDS - began < 5)) || pause=5
    sleep "$pause" &
    wait $!
  done
  kill -TERM "$1" 2> /dev/null
}

# A squashfs is complete if it has as many bytes as its superblock says (magic at 0, bytes_used at 40, little-endian).
is_whole() {
  local magic used
  magic=$(head -c 4 -- "$1" 2> /dev/null)
  used=$(od -An -t u8 -j 40 -N 8 -- "$1" 2> /dev/null | tr -d ' ')
  [ "$magic" = hsqs ] && [[ $used =~ ^[0-9]+$ ]] && ((used > 96 && used <= $(stat -c %s -- "$1"))) || return 1
  ! command -v unsquashfs > /dev/null || unsquashfs -s "$1" > /dev/null 2>> "$log"
}

# places: the folders where enroot can work, best first: on the cache folder's filesystem, which has space; then on the node's own disks, in
# case that filesystem cannot lay layers over each other. Not in the node's memory (tmpfs).
places() {
  local place
  echo "$work"
  for place in "${TMPDIR:-}" /raid /scratch /local /var/tmp /tmp; do
    if [ -d "$place" ] && [ -w "$place" ] && [[ $(stat -f -c %T -- "$place" 2> /dev/null) != @(tmpfs|ramfs) ]]; then
      echo "$place/evalmake-$me-$TOKEN"
    fi
  done
}

# private FOLDER…: creates folders for us alone
private() { (umask 077 && mkdir -p -- "$@") 2>> "$log"; }

run_enroot() { # run_enroot WORD…: runs it in the background, so that we react to a signal at once
  "$@" >> "$log" 2>&1 < /dev/null &
  worker=$!
  wait "$worker"
  code=$?
  worker=
  return "$code"
}

# drop_damaged_layers: removes the layers of enroot's cache that are damaged; fails if there are none. enroot does not check them, so one
# would make every import fail that has it. They are zstd files, each named by the digest of what was downloaded.
drop_damaged_layers() {
  local file found=1
  command -v zstd > /dev/null || return 1
  for file in "$layers"/*; do
    if [[ ${file##*/} =~ ^[0-9a-f]{64}$ ]] && ! zstd -tq -- "$file" 2> /dev/null; then
      rm -f -- "$file"
      echo "[evalmake] layer ${file##*/} was damaged in the cache: fetching it again" >> "$log"
      found=0
    fi
  done
  return "$found"
}

import_with_enroot() {
  local form=$1 options=() place tries=0 checked=0
  [ "$MACHINE" = "$(uname -m)" ] || options=(--arch "$MACHINE")
  while read -r place; do
    private "$place" "$place/tmp" "$place/data" "$place/run" || continue
    export ENROOT_TEMP_PATH=$place/tmp ENROOT_DATA_PATH=$place/data ENROOT_RUNTIME_PATH=$place/run ENROOT_CACHE_PATH=$layers
    while :; do
      rm -f -- "$work/image.sqsh"
      run_enroot enroot import ${options[@]+"${options[@]}"} -o "$work/image.sqsh" "$form" && break
      # enroot prefers a token that an earlier import left beside the layers to fresh credentials.
      if ((!tries)) && tail -n 20 "$log" | grep -qE '\b401\b|Unauthorized' && [ -n "$(ls -A "$layers"/.tokens.* 2> /dev/null)" ]; then
        tries=1
        rm -rf -- "$layers"/.tokens.*
        echo "[evalmake] 401 with a cached token: trying again without it" >> "$log"
        continue
      fi
      if ((!checked)) && tail -n 30 "$log" | grep -v '^\[INFO\]' | grep -qiE 'zstd|tar: |premature end|unexpected e(of|nd)|corrupt'; then
        checked=1
        ! drop_damaged_layers || continue
      fi
      break
    done
    [ "$place" = "$work" ] || rm -rf -- "$place"
    if ((!code)) || ! tail -n 30 "$log" | grep -v '^\[INFO\]' | grep -qE 'ovlfs|whiteout|Operation not supported|not supported by'; then break; fi
    echo "[evalmake] $place cannot hold layers: trying another place" >> "$log"
  done < <(places)
  ((!code))
}

import_archive() {
  local kind=$KIND engine id
  if [ "$kind" = docker-archive ]; then
    for engine in podman docker; do
      if command -v "$engine" > /dev/null && id=$("$engine" load --quiet --input "$PLACE" 2>> "$log" | sed -n 's/^Loaded image[^:]*: *//p' | head -n 1) \
        && [ -n "$id" ]; then
        [ "$engine" = podman ] || engine=dockerd
        import_with_enroot "$engine://$id"
        return
      fi
    done
  fi
  for engine in skopeo umoci mksquashfs jq; do command -v "$engine" > /dev/null || verdict no-tool "$engine"; done
  private "$work/tmp"
  run_enroot skopeo copy --quiet "$kind:$PLACE" "oci:$work/tmp/oci:image" || return 1
  run_enroot umoci raw unpack ${rootless[@]+"${rootless[@]}"} --image "$work/tmp/oci:image" "$work/tmp/rootfs" || return 1
  configure "$work/tmp/rootfs" <(skopeo inspect --config "oci:$work/tmp/oci:image") || return 1
  # Only root may create device files: with any, the image would not start for others. enroot leaves them out too.
  find "$work/tmp/rootfs" \( -type b -o -type c \) -delete 2>> "$log"
  run_enroot mksquashfs "$work/tmp/rootfs" "$work/image.sqsh" -all-root -noD -noappend -quiet -no-progress
}
# configure ROOTFS CONFIG: writes what enroot import writes into an image: its environment, and the script that starts its command
configure() {
  local config dir
  config=$(cat "$2")
  mkdir -p "$1/etc"
  dir=$(jq -r '.config.WorkingDir // "" | if . == "" then "/" else . end' <<< "$config")
  mkdir -p "$1$dir"
  jq -r '.config.Env[]?' <<< "$config" > "$1/etc/environment"
  {
    printf 'mkdir -p %q 2> /dev/null\ncd %q && unset OLDPWD || exit 1\n\n' "$dir" "$dir"
    printf 'if [ -s /etc/rc.local ]; then\n    . /etc/rc.local\nfi\n\nif [ $# -gt 0 ]; then\n    exec %s "$@"\nelse\n    exec %s\nfi\n' \
      "$(jq -r '.config.Entrypoint // [] | @sh' <<< "$config")" "$(jq -r '(.config.Entrypoint // []) + (.config.Cmd // ["/bin/sh"]) | @sh' <<< "$config")"
  } > "$1/etc/rc"
  : > "$1/etc/rc.local"
}

# References and names were checked to contain no quotes before they came here, so they can stand between quotes.
write_sidecar() {
  local digest=${DIGEST:+\"$DIGEST\"} index=${INDEX:+\"$INDEX\"}
  cat > "$work/sidecar" << JSON
{
  "reference": "$REFERENCE",
  "canonical": "$CANONICAL",
  "digest": ${digest:-null},
  "index": ${index:-null},
  "key": "$KEY",
  "platform": "$PLATFORM",
  "bytes": $1,
  "enroot": "${version//[^0-9A-Za-z._+-]/}",
  "job": "${SLURM_JOB_ID:-}",
  "import": "$TOKEN",
  "by": "$BY",
  "host": "$(hostname)",
  "at": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "seconds": $((SECONDS - began))
}
JSON
}

main() {
  local form generation size kept
  [ "${work##*/}" = "$TOKEN" ] || exit 0
  trap 'verdict stopped' TERM INT
  trap 'verdict ended' EXIT
  # Slurm may have requeued this job: remove what its first attempt left.
  rm -rf -- "$work"/{image.sqsh,tmp,data,run,verdict}
  : > "$work/begun"
  layers=$FOLDER/.layers-$me
  private "$layers"
  if finished "$KEY" "$OLD"; then release; fi
  beat $$ > /dev/null 2>&1 &
  beating=$!
  rootless=()
  [ "$(id -u)" = 0 ] || rootless=(--rootless)
  export PATH=$PATH:/usr/local/bin:/usr/sbin
  command -v enroot > /dev/null || verdict no-enroot "$(hostname)"
  version=$(enroot version 2> /dev/null)
  printf '%s\n' "$version" > "$work/enroot"
  generation=${version%%.*}
  [[ $generation =~ ^[0-9]+$ ]] || generation=3
  if [[ $KIND == *-archive ]]; then
    [ -r "$PLACE" ] || verdict no-archive "$PLACE"
    import_archive
  else
    if ((generation >= 4)); then form=$FORM4; else form=$FORM3; fi
    [ -n "$form" ] || verdict no-digest "$version"
    import_with_enroot "$form"
  fi
  code=$?
  [ -d "$work" ] || exit 1
  ((!code)) || verdict failed "$code"
  is_whole "$work/image.sqsh" || verdict broken
  ! grep -qE "architecture doesn't match" "$log" || verdict architecture "$MACHINE"
  # enroot 3 imports by tag, which may have moved since we asked for its digest.
  if [ -n "$INDEX" ] && ((generation < 4)) && [ -n "$TAG" ] && command -v curl > /dev/null; then
    allow_http
    ask_registry "$work/asked" "$HOST" "$REPO" "$TAG"
    if [ "$status" = 200 ] && [ "$digest" != "$INDEX" ] && [ "$digest" != "$DIGEST" ]; then verdict moved "$digest"; fi
  fi
  size=$(stat -c %s -- "$work/image.sqsh")
  write_sidecar "$size" || verdict failed 1
  open_to_users "$work/image.sqsh" "$work/sidecar"
  # Running jobs may have the old file mounted. Under another name its blocks stay, even on a file server. Another user's file cannot be
  # linked (fs.protected_hardlinks), so it is renamed, and for a moment there is no file.
  if [ -e "$FOLDER/$STEM.sqsh" ]; then
    kept=$FOLDER/$STEM.replaced-$(date -u +%Y%m%dT%H%M%SZ).sqsh
    ln -- "$FOLDER/$STEM.sqsh" "$kept" 2> /dev/null || mv -T -- "$FOLDER/$STEM.sqsh" "$kept" || verdict failed 1
  fi
  if ! { mv -f -T -- "$work/image.sqsh" "$FOLDER/$STEM.sqsh" && mv -f -T -- "$work/sidecar" "$FOLDER/$STEM.json"; }; then verdict failed 1; fi
  echo "imported $FOLDER/$STEM.sqsh: $size bytes in $((SECONDS - began)) s"
  release
}
main
