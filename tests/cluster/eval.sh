#!/usr/bin/env bash
# The main job on the test cluster: brings it up, unless it is, and evaluates the toy model there through the profile CLUSTER.
#   make cluster-eval TASKS=toy.sums     the same as
#   EVALMAKE_TASKS=toy.sums tests/cluster/eval.sh
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"
BED_QUIET=1 bash "$HERE/up.sh" > /dev/null
# shellcheck source=/dev/null
. "$BED/env.sh"
cd "$ROOT"
words=("PROFILE=CLUSTER" "CONFIG=$B/cluster-eval.yaml" "SET=deployment.checkpoint_path=$B/jobs/checkpoint${EVALMAKE_SET:+ $EVALMAKE_SET}")
[ -z "${EVALMAKE_TASKS+set}" ] || words+=("TASKS=$EVALMAKE_TASKS")
# Not $(MAKE): a command of its own, without what the make that called this was given.
exec env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES -u EVALMAKE_TASKS -u EVALMAKE_SET make eval "${words[@]}"
