#!/usr/bin/env python3
"""Stop the jobs of a run for good; nothing of it is left running.

    scripts/cancel_run.py --submission runs/ID/submission.json
    scripts/cancel_run.py --submission runs/ID/submission.json --tasks hellaswag       # on Slurm and Docker

Exit codes: 0 stopped, or nothing was running; 1 something would not stop; 2 the run was not submitted; 3 the cluster did not answer.
Each of several runs is stopped, whatever becomes of the others.
"""

import sys
from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import cancel

parser = command_line.parser(__doc__)
parser.add_argument("--submission", required=True, action="append", help="submission.json of the run; can be repeated")
parser.add_argument("--tasks", default="", help="only these tasks, separated by spaces")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    sys.exit(cancel.cancel_each([Path(path) for path in options.submission], options.tasks.split()))
