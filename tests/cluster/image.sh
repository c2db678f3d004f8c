#!/usr/bin/env bash
# Builds the test cluster's images once (about 40 s), keeps them, and gives the bed its copies: what an evaluation needs (bash, base64,
# Python, nemo-evaluator as the lock pins it, the toy model and the toy tasks), and a tiny one of 2 MB for what only needs some image.
# In the registry: evalmake/toy:25.11 and :latest, evalmake/tiny:1 and :latest. In images/: toy.sqsh.
# Kept in $XDG_CACHE_HOME/evalmake (~/.cache/evalmake), named by what they are made from: a change to image/ costs 15 s, one of the lock all.
#   image.sh REGISTRY     up.sh calls it; with the images there it takes 0.1 s
#   image.sh              only builds, and prints the folder that holds toy.oci and tiny.oci (tests/docker_daemon.py)
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"
registry=${1:-}

# The real home: tests give themselves another.
home=$(getent passwd "$(id -u)" | cut -d: -f6)
cache=${XDG_CACHE_HOME:-$home/.cache}/evalmake
mkdir -p "$cache"
lock=$ROOT/requirements/pipeline.lock
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
evaluator=$(sed -n 's/^\(nemo-evaluator==[^ ;]*\).*/\1/p' "$lock")
[ -n "$evaluator" ] || die "$lock pins no nemo-evaluator"

hash_of() { sha256sum | cut -c1-12; }
base_hash=$({ cat "$lock" "$HERE/image.sh"; echo "$codename $(uname -m)"; } | hash_of)
files_of() { (cd "$HERE/image" && find . -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 cat); }
hash=$({ echo "$base_hash"; files_of; } | hash_of)
base=$cache/cluster-base-$base_hash
image=$cache/cluster-image-$hash
[ -z "$registry" ] || [ "$(cat "$BED/registry/.images" 2> /dev/null)" != "$hash" ] || exit 0

# Two beds may be built at once.
exec 9>> "$cache/.cluster-image.lock"
flock 9
work=$(mktemp -d -p "$cache" .building.XXXXXX)
trap 'rm -rf "$work"' EXIT
# In a log, and shown when it fails.
quietly() { "$@" > "$work/log" 2>&1 9>&- || { tail -5 "$work/log" >&2; die "the test cluster's image: $1 failed (see above)"; }; }

build_base() {
  say "building the image: the base of $codename"
  # Unpacked only (extract): nothing of it has to be configured, and it takes 10 s instead of 20.
  quietly mmdebstrap --quiet --variant=extract --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include=base-files,base-passwd,bash,coreutils,dash,sed,grep,findutils,hostname,tar,gzip,procps,libc-bin,libstdc++6,python3 "$codename" "$work/rootfs"
  cp "$work/rootfs/usr/share/base-passwd/passwd.master" "$work/rootfs/etc/passwd"
  cp "$work/rootfs/usr/share/base-passwd/group.master" "$work/rootfs/etc/group"
  rm -rf "$work"/rootfs/var/{cache,lib}/apt "$work"/rootfs/usr/lib/*/gconv "$work"/rootfs/usr/lib/python3*/{test,idlelib,lib2to3,pydoc_data}
  say "building the image: $evaluator and what it needs"
  # Debian's own Python is the image's Python. Which packages are needed is asked without hashes, and their part of the lock installed with.
  quietly /usr/bin/python3 -m venv "$work/venv"
  sed -E 's/ *\\$//; /^ *--hash/d' "$lock" > "$work/versions"
  quietly "$work/venv/bin/pip" install --dry-run --ignore-installed --only-binary :all: --report "$work/report.json" -c "$work/versions" "$evaluator"
  jq -r '.install[].metadata.name' "$work/report.json" | tr 'A-Z_.' 'a-z--' > "$work/names"
  awk 'NR == FNR {want[$1]; next} /^[A-Za-z0-9]/ {split($1, part, "=="); sub(/\[.*/, "", part[1]); on = part[1] in want} on' \
    "$work/names" "$lock" > "$work/requirements"
  quietly "$work/venv/bin/pip" install --no-compile --require-hashes --no-deps --only-binary :all: --target "$work/rootfs/opt/evaluator" \
    -r "$work/requirements"
  # Compiled once here: without it each job of a fresh container spends 3 s on it.
  quietly /usr/bin/python3 -m compileall -q -j 2 --invalidation-mode unchecked-hash -s "$work/rootfs" "$work/rootfs/opt/evaluator" "$work"/rootfs/usr/lib/python3.*
  mkdir "$work/base"
  mv "$work/rootfs" "$work/base/rootfs"
  mv "$work/base" "$base"
}

# oci FOLDER ROOTFS ENVIRONMENT…: an OCI layout of one layer
oci() {
  local folder=$1 rootfs=$2 settings=() value
  shift 2
  for value in "$@"; do settings+=(--config.env "$value"); done
  quietly umoci init --layout "$folder"
  quietly umoci new --image "$folder:image"
  quietly umoci insert --image "$folder:image" "$rootfs" /
  quietly umoci config --image "$folder:image" "${settings[@]}" --config.workingdir /workspace
  quietly umoci gc --layout "$folder"
}

build() {
  [ -d "$base" ] || build_base
  say "building the image: the toy model and its tasks"
  mkdir "$work/image"
  cp -a "$base/rootfs" "$work/toy"
  mkdir -p "$work/toy/opt/toy" "$work/toy/workspace" "$work/toy/usr/local/bin"
  cp -r "$HERE"/image/. "$work/toy/opt/toy/"
  find "$work/toy/opt/toy" -name __pycache__ -prune -exec rm -rf {} +
  sed '1s|.*|#!/usr/bin/python3|' "$base/rootfs/opt/evaluator/bin/nemo-evaluator" > "$work/toy/usr/local/bin/nemo-evaluator"
  chmod 755 "$work/toy/usr/local/bin/nemo-evaluator"
  path=PATH=/usr/local/bin:/usr/bin:/bin
  python=PYTHONPATH=/opt/toy:/opt/evaluator
  # Only root may create device files, and so start a container with some.
  find "$work/toy" \( -type b -o -type c \) -delete
  oci "$work/image/toy.oci" "$work/toy" "$path" "$python" PYTHONUNBUFFERED=1
  # What enroot import writes beside the files.
  printf '%s\n' "$path" "$python" PYTHONUNBUFFERED=1 > "$work/toy/etc/environment"
  echo /workspace > "$work/toy/etc/box.workdir"
  quietly mksquashfs "$work/toy" "$work/image/toy.sqsh" -all-root -comp lzo -noD -noappend -quiet -no-progress
  mkdir -p "$work"/tiny/{bin,tmp,workspace,etc}
  cp /bin/busybox "$work/tiny/bin/"
  chroot "$work/tiny" /bin/busybox --install -s /bin
  echo 'NAME="tiny"' > "$work/tiny/etc/os-release"
  oci "$work/image/tiny.oci" "$work/tiny" PATH=/bin
  mv "$work/image" "$image"
  # An image is 150 MB: those before the last two have had their day.
  find "$cache" -maxdepth 1 -name 'cluster-image-*' -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- | xargs -r rm -rf
  find "$cache" -maxdepth 1 -name 'cluster-base-*' -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- | xargs -r rm -rf
}

[ -d "$image" ] || build
if [ -z "$registry" ]; then
  echo "$image"
  exit 0
fi
for name in toy:25.11 tiny:1; do
  for tag in "${name#*:}" latest; do
    # -f v2s2: real enroot 3.x answers 404 to an OCI manifest.
    quietly skopeo copy -q -f v2s2 --dest-tls-verify=false "oci:$image/${name%:*}.oci:image" "docker://$registry/evalmake/${name%:*}:$tag"
  done
done
install -m 644 "$image/toy.sqsh" "$BED/images/.toy.sqsh.new"
mv "$BED/images/.toy.sqsh.new" "$BED/images/toy.sqsh"
echo "$hash" > "$BED/registry/.images"
say "the images are in the registry"
