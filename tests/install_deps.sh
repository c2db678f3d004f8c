#!/usr/bin/env bash
# Installs the system packages that the tests need; Debian or Ubuntu, as root or with sudo. Those that are there cost nothing.
#   make test-deps
set -euo pipefail

# git lists the files that a test's copy of the project gets; unshare (util-linux) gives a test a full disk of its own;
# python3-venv is what makes a venv with the system's Python.
packages=(git make util-linux procps python3-venv)

if ! command -v dpkg-query > /dev/null; then
  echo "error: no dpkg here: install the equivalents of ${packages[*]} with your package manager, then make test" >&2
  exit 2
fi
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "error: not root and no sudo: have an administrator run apt-get install ${missing[*]}" >&2; exit 2; }
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
  tail -5 "$log" >&2
  echo "error: apt-get could not install ${missing[*]} (see above); mend that, then make test-deps" >&2
  exit 1
fi
