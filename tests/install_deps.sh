#!/usr/bin/env bash
# Installs the system packages that the tests need; Debian or Ubuntu, as root or with sudo. Those that are there cost nothing.
# On a Debian that has a compiler and little else of it: 12 s.
#   make test-deps
#   tests/install_deps.sh --missing    prints what is missing, installs nothing
set -euo pipefail

packages=(
  git make python3 python3-venv                                      # a test's copy of the project, and venvs
  slurm-wlm slurmdbd munge mariadb-server-core mariadb-client-core   # the cluster, and its accounting
  libpmix2 libpmix-dev                                               # libpmix-dev only for the libpmix.so link that mpi/pmix opens
  openssh-server openssh-client rsync curl jq procps util-linux iproute2
  squashfs-tools skopeo umoci docker-registry zstd                   # the registry, and the stand-in for enroot
  mmdebstrap busybox-static                                          # the images
  gcc libc6-dev libslurm-dev                                         # the stand-in for the container plugin is compiled
  docker.io                                                          # the daemon that the tests of Docker start
)

if ! command -v dpkg-query > /dev/null; then
  echo "error: no dpkg here: the tests need Debian or Ubuntu (a virtual machine or a privileged container will do)" >&2
  exit 2
fi
missing=()
for package in "${packages[@]}"; do
  # Docker's own packages serve as well, and cannot be installed beside Debian's.
  [ "$package" != docker.io ] || ! PATH=$PATH:/usr/sbin:/sbin command -v dockerd > /dev/null || continue
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
done
[ "${1:-}" != --missing ] || { echo "${missing[*]}"; exit 0; }
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "error: not root and no sudo: have an administrator run apt-get install ${missing[*]}" >&2; exit 2; }
  as_root=(sudo)
fi
# Nothing of this may run as a service: the cluster starts its own daemons. policy-rc.d keeps apt from starting them now,
# disabling the units keeps them from starting with the machine. Services that were installed before are left alone.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
# Reached through the trap.
# shellcheck disable=SC2317
clean_up() {
  rm -f "$log"
  [ -z "${made_policy:-}" ] || "${as_root[@]}" rm -f "$policy"
}
trap clean_up EXIT
made_policy=
if [ ! -e "$policy" ]; then
  made_policy=1
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" > /dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
  tail -5 "$log" >&2
  echo "error: apt-get could not install ${missing[*]} (see above); fix that, then run make test-deps" >&2
  exit 1
fi
if command -v systemctl > /dev/null; then
  for package in "${missing[@]}"; do
    case $package in
      slurm-wlm) units=(slurmctld slurmd) ;;
      slurmdbd | munge | docker-registry) units=("$package") ;;
      openssh-server) units=(ssh ssh.socket) ;;
      docker.io) units=(docker docker.socket containerd) ;;
      *) continue ;;
    esac
    "${as_root[@]}" systemctl disable "${units[@]}" > /dev/null 2>&1 || true # a container without systemd has nothing to disable
  done
fi
