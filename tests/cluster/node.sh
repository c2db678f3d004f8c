#!/usr/bin/env bash
# The first process of a virtual node, in namespaces of its own (node_up.sh starts it): makes the node's network, name, /tmp and home, then
# runs its slurmd. Killing it kills all of the node, like a power cut.
#   unshare --net --uts --mount --pid --fork --kill-child --mount-proc node.sh NAME ADDRESS HOSTS BED LINK HOME
set -euo pipefail
# shellcheck source=tests/cluster/machine.sh
. "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
name=$1 address=$2
shift 2

ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done # node_up.sh moves it in here
ip address add "$address/24" dev eth0
ip link set eth0 up
make_machine "$name" "$@"
# Not exec: pid 1 is to reap what jobs leave behind, and bash does.
slurmd -D -N "$name" -f "$SLURM_CONF" &
trap 'kill "$!"; wait' TERM
wait
