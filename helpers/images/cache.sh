# shellcheck shell=bash
# The cache folder of squashed images, and the locks in it. For inspect.sh, imports.sh, import_job.sh and clean.sh.
# An image is STEM.sqsh with its sidecar STEM.json beside it; STEM ends in -KEY, 12 hex digits. It counts only while the sidecar names as many
# bytes as the file has. The import of a key holds .KEY.lock, a folder with one folder in it, named after the holder's token, in which it
# works. The lock is prepared under another name and renamed, which succeeds only while there is no lock or an empty one. A lock is broken by
# a rename too, which succeeds for only one; the former holder then finds its paths missing and can finish nothing.
# shellcheck disable=SC2034,SC2154

# Whoever may use remote_job_dir may use its images: our files and folders get the rights that the folder above gives its group and others.
make_cache() { # make_cache FOLDER: creates it if it is missing, and tries to write; fails with the error message
  local mode group=0 others=0
  if [ ! -d "$1" ]; then
    mkdir -p -- "${1%/*}" && mode=$(stat -c %a -- "${1%/*}") || return 1
    mode=$((8#$mode))
    ((!(mode & 8#020))) || group=$((8#2020)) # setgid: files of other members belong to the group too
    others=$((mode & 8#1007))
    mode=$((8#750 | group | others))
    # It must have these rights from the start: another user may look at it the next moment.
    if (umask "$(printf %04o $((8#777 & ~mode)))" && mkdir -- "$1") 2> /dev/null; then
      chgrp --reference="${1%/*}" -- "$1" 2> /dev/null
      chmod "$(printf %o "$mode")" -- "$1"
    fi
  fi
  # 1 MiB: an empty file fits on a full disk.
  { head -c 1048576 /dev/zero > "$1/.probe.$$"; } 2>&1 || { rm -f -- "$1/.probe.$$"; return 1; }
  rm -f -- "$1/.probe.$$"
}

# open_to_users FILE…: makes files as readable as the folder is
open_to_users() {
  local mode
  mode=$(stat -c %a -- "$FOLDER") || return 0
  chgrp --reference="$FOLDER" -- "$@" 2> /dev/null
  if ((8#$mode & 8#004)); then mode=644; else mode=640; fi
  chmod "$mode" -- "$@"
}

# show_sidecars FOLDER: a frame for each sidecar, with the size of its image
show_sidecars() {
  local file text size
  for file in "$1"/*.json; do
    [ -r "$file" ] || continue
    read -r -d '' text < "$file"
    size=$(stat -c %s -- "${file%.json}.sqsh" 2> /dev/null) || size=-1
    frame sidecar - "$size $file"$'\n'"$text"
  done
}

# finished KEY OLDS: whether there is an image of the key that none of these imports made; sets $sidecar, its $text, and the image's $size
finished() {
  local made
  for sidecar in "$FOLDER"/*-"$1".json; do
    [ -r "$sidecar" ] || continue
    read -r -d '' text < "$sidecar"
    [[ $text =~ \"import\":\ \"([0-9a-f]+)\" ]] || continue
    made=${BASH_REMATCH[1]}
    [[ " $2 " != *" $made "* ]] || continue
    size=$(stat -c %s -- "${sidecar%.json}.sqsh" 2> /dev/null) || continue
    [[ $text == *"\"bytes\": $size,"* ]] || continue
    return 0
  done
  return 1
}

# set_aside LOCK TOKEN: breaks a lock: the holder's folder becomes .failed.TOKEN, without its large files. Fails if somebody else broke it.
# Another user's folder cannot be moved out of its parent (that would write into it), but the lock as a whole can be renamed. If somebody else
# took the lock just then, it is put back. If even that is too late, two imports run, and the last one counts.
set_aside() {
  if ! mv -T -- "$1/$2" "$FOLDER/.failed.$2" 2> /dev/null; then
    [ -d "$1/$2" ] && mv -T -- "$1" "$FOLDER/.failed.$2" 2> /dev/null || return 1
    [ ! -d "$FOLDER/.failed.$2/$2" ] || return 0
    mv -T -- "$FOLDER/.failed.$2" "$1" 2> /dev/null
    return 1
  fi
  rmdir -- "$1" 2> /dev/null
  rm -rf -- "$FOLDER/.failed.$2"/{image.sqsh,tmp,data,run} 2> /dev/null
  return 0
}
