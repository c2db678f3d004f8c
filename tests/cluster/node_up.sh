#!/usr/bin/env bash
# Starts virtual node nN of the test cluster, unless it runs (up.sh calls it; so does faults.py, to bring back a node that was killed).
#   node_up.sh N SUBNET
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"
number=$1 subnet=$2 name=n$1

! alive "$name" || exit 0
mkdir -p "$BED/spool/$name"
leg=$bridge-$number
ip link del "$leg" 2> /dev/null || true # of a node that was killed
# A clean environment: jobs get what slurmd has, and nothing of the shell that started the cluster belongs there.
env -i BED="$BED" SLURM_CONF="$SLURM_CONF" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  setsid unshare --net --uts --mount --pid --fork --kill-child --mount-proc \
  "$B/bin/node.sh" "$name" "$subnet.$((10 + number))" "$B/etc/hosts" "$BED" "$B" "$user_home" >> "$BED/log/$name.log" 2>&1 < /dev/null &
pid=$!
echo "$pid" > "$BED/run/$name.pid"
for _ in $(seq 100); do
  [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] || break
  sleep 0.02
done
if ! { ip link add "$leg" type veth peer name eth0 netns "$pid" && ip link set "$leg" master "$bridge" up; } 2>> "$BED/log/$name.log"; then
  die "node $name gets no network: $(tail -1 "$BED/log/$name.log")"
fi
