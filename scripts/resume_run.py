#!/usr/bin/env python3
"""Run tasks again that ended without results, in the same run; those with results stay as they are.

    scripts/resume_run.py --submission runs/ID/submission.json
    scripts/resume_run.py --submission runs/ID/submission.json --tasks "adlr_mmlu hellaswag"

Exit codes: 0 queued, or nothing to do; 1 Slurm refused; 2 the run was not submitted, or no such task; 3 the cluster did not answer.
"""

from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.steps import resume

parser = command_line.parser(__doc__)
parser.add_argument("--submission", required=True, help="submission.json of the run")
parser.add_argument("--tasks", default="", help="only these tasks, separated by spaces")
options = parser.parse_args()

with command_line.errors_as_exit_codes(), step.recorded(run_folder.run_of(options.submission), "resume"):
    resume.resume(Path(options.submission), options.tasks.split())
