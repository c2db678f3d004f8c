#!/usr/bin/env python3
"""Decide by a policy whether a candidate may go on, alone or compared with a baseline.

    scripts/gate.py --policy policy.yaml --runs "20261122T013512Z-local-7f3a 20261121"      # candidate and baseline
    scripts/gate.py --policy policy.yaml --runs latest                                      # a policy without margins
    scripts/gate.py --policy policy.yaml --runs latest --out -                              # gate.json on stdout

Writes gate.json into the candidate's folder.

Exit codes: 0 GO, 2 a policy or runs that do not fit, 5 NO-GO, 6 INCONCLUSIVE.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.common.errors import BadInput
from helpers.steps import gate

parser = command_line.parser(__doc__)
parser.add_argument("--policy", default="", help="the policy, a YAML file")
parser.add_argument("--runs", default="", help="the candidate and the baseline, separated by a space: ids, starts of ids, or latest")
parser.add_argument("--allow", default="", help="what may differ between them though it changes the meaning: keys, separated by spaces")
parser.add_argument("--out", help="gate.json to write, or - for stdout (default: in the candidate's folder)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if not options.policy or not options.runs.strip():
        raise BadInput('give a policy and runs: POLICY=policy.yaml RUNS="candidate baseline"; `make runs` lists runs')
    gate.judge(options.policy, options.runs, options.allow, options.out)
