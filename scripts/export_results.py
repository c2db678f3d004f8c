#!/usr/bin/env python3
"""Bring the results of a run to W&B, ask W&B whether it holds them, and write exports.json.

    scripts/export_results.py --submission runs/ID/submission.json --out runs/ID/exports.json
    scripts/export_results.py --submission runs/ID/submission.json --out runs/ID/exports.json --auto   # where the config asks for it

What W&B already holds stays: exporting twice changes nothing. With WANDB_MODE=offline the runs are written below runs/ID/wandb.
Exit codes: 0 W&B holds the scores, or they are on this machine (offline), or with --auto the export failed and exports.json says so;
1 W&B does not hold the scores, 2 credentials are missing or refused, or the run has not ended, 3 W&B did not answer.
"""

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.credentials.wandb_server import WANDB
from helpers.steps import export

parser = command_line.parser(__doc__)
parser.add_argument("--submission", required=True, help="submission.json of the run")
parser.add_argument("--out", required=True, help="exports.json to write, or - for stdout")
parser.add_argument("--dest", default=WANDB, help="where to export to (only wandb)")
parser.add_argument("--auto", action="store_true", help="export only if the config says so; record a failure instead of failing")
options = parser.parse_args()

with command_line.errors_as_exit_codes(), step.recorded(run_folder.run_of(options.submission), "export_results"):
    export.export(options.submission, options.out, options.dest, options.auto)
