# shellcheck shell=bash
# What the scripts of the test cluster share: where its bed is, its knobs, and small tools. Sourced, not run.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
export PATH=$PATH:/usr/sbin:/sbin

# ---- Knobs, from the environment -----------------------------------------------------------------------------------------------------
# No file records BED: give the same one to every script. All others are read by up.sh alone; a change takes effect after down.sh.
BED=${BED:-$ROOT/.cluster}               # the folder that holds all of it
WITH_ACCT=${WITH_ACCT:-1}                # 0: accounting disabled, as on some clusters: no sacct, no limits
WITH_IMAGE=${WITH_IMAGE:-1}              # 0: no images (a bed for Slurm alone)
NODES=${NODES:-2}                        # virtual nodes n1..nN, each a set of namespaces: network, processes, host name and /tmp of its own
CPUS=${CPUS:-8}                          # CPUs a node claims to have
GPUS=${GPUS:-8}                          # GPUs a node claims to have
HOST_ALIAS=${HOST_ALIAS:-evalmake-cluster} # the name by which ssh knows the login node
SUBMIT_USER=${SUBMIT_USER:-${SUDO_USER:-$(id -un)}} # logs in and owns the jobs
OTHER_USER=${OTHER_USER:-nobody}         # has the right to submit too: `sbatch --uid` makes jobs that are not ours
ACCOUNTS=${ACCOUNTS:-research other}     # Slurm accounts; the first is the profile's
MAX_JOBS=${MAX_JOBS:-16}                 # jobs that a user may have running (the default QOS)
ENFORCE_PART_LIMITS=${ENFORCE_PART_LIMITS:-NO} # ALL: sbatch refuses a walltime over the partition's; NO is Slurm's default: it pends for ever
SLURMD_TIMEOUT=${SLURMD_TIMEOUT:-15}     # seconds until a silent node is DOWN (Slurm's default is 300)
BED_QUIET=${BED_QUIET:-}                 # 1: say nothing but errors
# --------------------------------------------------------------------------------------------------------------------------------------

BED=$(mkdir -p "$BED" && cd "$BED" && pwd -P)
bed_hash=$(printf %s "$BED" | sha256sum | cut -c1-8)
# The bed's name in configurations. Slurm's cannot hold a space, and a socket's path must stay under 108 characters
# (spool/n10/n10_4294967295.4294967295 is the longest): where the real path will not do, a short link stands for it.
B=$BED
if [ "${#BED}" -gt 60 ] || [[ $BED == *[!A-Za-z0-9/._-]* ]]; then
  B=/tmp/evalmake-cluster-$(id -u)/$bed_hash
fi
export SLURM_CONF=$B/etc/slurm.conf
# shellcheck disable=SC2034 # for those who source this
# The nodes' network: a bridge and a leg a node, named after the bed (15 characters are the kernel's limit).
bridge=em${bed_hash:0:7}

# shellcheck disable=SC2034
user_home=$(getent passwd "$SUBMIT_USER" | cut -d: -f6)

die() { echo "error: $*" >&2; exit 1; }
now() { date +%s.%N; }
began=$(now)
say() { [ -n "$BED_QUIET" ] || printf '[%5.1fs] %s\n' "$(awk -v a="$began" -v b="$(now)" 'BEGIN {print b - a}')" "$*" >&2; }
# alone "$@": run this very script under the bed's lock. flock closes its file first (-o): daemons must not inherit the lock.
alone() {
  local code=0
  if [ "${BED_LOCKED:-}" = "$BED" ]; then
    unset BED_LOCKED
    return
  fi
  BED_LOCKED=$BED flock -o -w 300 -E 75 "$BED/.lock" "$0" "$@" || code=$?
  [ "$code" != 75 ] || die "$BED: another up.sh or down.sh has been at work there for five minutes; look at it, then try again"
  exit "$code"
}
# The pid that a file holds, if that process is this bed's: its command line or environment names the bed. A recycled pid is not.
pid_of() {
  local pid
  pid=$(cat "$B/run/$1.pid" 2> /dev/null) && [ -n "$pid" ] || return 1
  grep -aqsF -e "$B/" -e "BED=$BED" "/proc/$pid/cmdline" "/proc/$pid/environ" || return 1
  echo "$pid"
}
alive() { pid_of "$1" > /dev/null; }
# Whether a process has ended; a zombie has: whoever adopts daemons may take a second or two to bury them.
ended() {
  local state
  { read -r _ _ state _ < "/proc/$1/stat"; } 2> /dev/null || return 0
  [ "$state" = Z ]
}
# wait_for SECONDS COMMAND…: until it succeeds; a program (not a function) is given 5 s each time: Slurm's clients can hang for minutes
wait_for() {
  local end=$((SECONDS + $1)) limit=()
  shift
  [ "$(type -t "$1")" = function ] || limit=(timeout 5)
  until "${limit[@]}" "$@" > /dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}
