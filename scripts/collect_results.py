#!/usr/bin/env python3
"""Collect the scores of a run's tasks in results.json; show them as a table.

    scripts/collect_results.py --submission runs/ID/submission.json --status runs/ID/status.json --out runs/ID/results.json
    scripts/collect_results.py --submission runs/ID/submission.json --out runs/ID/results.json --partial   # the scores so far
    scripts/collect_results.py --show runs/ID/results.json

Exit codes: 0 collected (also when a task failed), 2 the run was not submitted, 4 with --show when some task has no results.
"""

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.common.errors import BadInput
from helpers.steps import results

parser = command_line.parser(__doc__)
parser.add_argument("--submission", help="submission.json of the run, or - for stdin")
parser.add_argument("--status", help="status.json of the run (default: ask now)")
parser.add_argument("--out", help="results.json to write, or - for stdout")
parser.add_argument("--partial", action="store_true", help="show the scores so far; write them only when all tasks have ended")
parser.add_argument("--show", metavar="RESULTS", help="show this results.json and give the verdict")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if options.show:
        with step.recorded(run_folder.run_of(options.show), "verdict"):
            results.verdict(options.show)
    elif options.submission and options.out:
        with step.recorded(run_folder.run_of(options.submission), "collect_results"):
            results.gather(options.submission, options.status, options.out, options.partial)
    else:
        raise BadInput("--submission and --out are needed to collect, --show to show")
