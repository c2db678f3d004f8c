#!/usr/bin/env bash
# Says of each daemon and node of the test cluster whether it answers; exit code 1 when one does not. `pytest tests/cluster` does the rest.
#   tests/cluster/check.sh
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"
[ -e "$BED/run/up" ] || die "no cluster is up in $BED: run make cluster-up"
# shellcheck source=/dev/null
. "$BED/etc/settings"
read -r with_acct nodes _ < "$BED/run/up"

failed=0
check() {
  local name=$1
  shift
  if timeout 10 "$@" > /dev/null 2>&1; then
    printf '%-10s answers\n' "$name"
  else
    printf '%-10s DOES NOT ANSWER\n' "$name"
    failed=1
  fi
}
check munged bash -c "munge -n -S '$B/run/munge/socket' | unmunge -S '$B/run/munge/socket'"
if [ "$with_acct" = 1 ]; then
  check mariadbd mariadb --no-defaults -uroot -S "$B/run/mysqld.sock" -e 'select 1'
  check slurmdbd sacctmgr -n show cluster
fi
check slurmctld bash -c 'scontrol ping | grep -q "is UP"'
for ((i = 1; i <= nodes; i++)); do check "n$i" bash -c "sinfo -h -n n$i -o %t | grep -qE '^(idle|mix|alloc|comp)$'"; done
check sshd "$BED/client-bin/ssh" -o BatchMode=yes "$HOST_ALIAS" true
check registry curl -fsS --noproxy '*' "http://${subnet:?}.1:$((${port:?} + 1))/v2/"
exit "$failed"
