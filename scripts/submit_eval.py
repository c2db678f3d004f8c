#!/usr/bin/env python3
"""Submit an evaluation through nemo-evaluator-launcher, once: launcher.yaml (what the launcher gets), then submission.json (its jobs).

    scripts/submit_eval.py --config runs/ID/config.yaml --model runs/ID/model.json --launcher runs/ID/launcher.yaml --prepare
    scripts/submit_eval.py --config runs/ID/config.yaml --launcher runs/ID/launcher.yaml --out runs/ID/submission.json

Exit codes: 0 submitted (or submitted before), 1 refused by the launcher or by Slurm, 2 something is missing, 3 Docker or the cluster does
not answer, 130 interrupted: nothing keeps running on this machine; the same command finds what Slurm has queued.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags, run_folder, step
from helpers.common.errors import BadInput
from helpers.steps import cancel, submit

parser = command_line.parser(__doc__)
parser.add_argument("--config", required=True, help="config.yaml of the run, or - for stdin")
parser.add_argument("--model", help="model.json of the run, for --prepare (a config without ${art:…} needs none)")
parser.add_argument("--launcher", help="launcher.yaml of the run")
parser.add_argument("--out", help="submission.json to write, or - for stdout")
parser.add_argument("--prepare", action="store_true", help="only write launcher.yaml")
parser.add_argument("--keep-partial", default="0", metavar="1", help="on Slurm: keep the jobs of the other tasks when one is refused")
parser.add_argument("--owner", type=int, metavar="PID", help="on this machine: stop the jobs when this process ends (an attached make)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if not options.launcher:
        raise BadInput("--launcher is missing: name the launcher.yaml to write (--prepare) or to submit (--out)")
    run = run_folder.run_of(options.launcher)
    if options.prepare:
        with step.recorded(run, "prepare"):
            submit.prepare(options.config, options.model, options.launcher)
    elif options.out:
        with step.recorded(run, "submit_eval"), cancel.leaving_nothing(run):
            submit.submit(options.config, options.launcher, options.out, flags.is_yes("KEEP_PARTIAL", options.keep_partial), options.owner)
    else:
        raise BadInput("give --prepare to write launcher.yaml, or --out to submit it")
