#!/usr/bin/env python3
"""Compare the scores of two runs, task by task: the difference with its interval and p-value.

    scripts/compare_runs.py --runs "20261122T013512Z-local-7f3a latest"
    scripts/compare_runs.py --runs "20261122 20261123" --show 10                     # also samples that only one got right
    scripts/compare_runs.py --runs "20261122 20261123" --allow "max_new_tokens"      # although they differ in that

Where both runs kept their samples, the same samples are compared with each other; otherwise the scores alone are. Runs whose scores do not
mean the same are refused.

Exit codes: 0 compared, 2 a run that does not exist or has no results, or runs that cannot be compared.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags
from helpers.common.errors import BadInput
from helpers.steps import compare

parser = command_line.parser(__doc__)
parser.add_argument("--runs", default="", help="two runs, separated by a space: ids, starts of ids, or latest")
parser.add_argument("--allow", default="", help="what may differ though it changes the meaning: keys, separated by spaces")
parser.add_argument("--show", metavar="N", help="show up to N samples of each kind that only one run got right")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if not options.runs.strip():
        raise BadInput('give two runs: RUNS="ID latest"; `make runs` lists them')
    number = options.show and flags.count("SHOW", options.show, "samples")
    compare.show(options.runs, options.allow, number)
