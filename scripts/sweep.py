#!/usr/bin/env python3
"""Evaluate several models named by artifact, one run each, and print one table: models as rows, scores as columns.

    scripts/sweep.py --models "sft:v1 sft:v2 rl:latest" --profile MY-CLUSTER --tasks "adlr_mmlu hellaswag"
    scripts/sweep.py --models "sft:v1 sft:v2 rl:latest" --profile MY-CLUSTER --tasks "adlr_mmlu hellaswag" --jobs 4

On a cluster the models run side by side over one connection, at most --jobs jobs at a time; on this machine they run one after another.
After an interruption the same command continues. Its files are in runs/sweeps/ID/.

Exit codes: 0 all have scores, 1 a model could not be evaluated, 2 bad input, 3 the cluster or W&B did not answer, 4 a task failed,
130 interrupted.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags
from helpers.common.errors import interruptible
from helpers.steps import request, sweep

parser = command_line.parser(__doc__)
parser.add_argument("--models", default="", help="models by artifact, separated by spaces")
parser.add_argument("--jobs", help="on Slurm: the most jobs at a time (default: no limit)")
parser.add_argument("--make", default="make", help="GNU Make to call (default: make)")
parser.add_argument("--imports", help="how many images to import at a time")
parser.add_argument("--keep-partial", metavar="1", help="if Slurm refuses a task, keep the jobs of the others")
request.add_arguments(parser)
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    jobs = None if options.jobs is None else flags.count("JOBS", options.jobs, "jobs")
    interruptible()
    for_each_run = {"IMPORTS": options.imports, "KEEP_PARTIAL": options.keep_partial}
    make = [options.make, *(f"{name}={value}" for name, value in for_each_run.items() if value is not None)]
    sweep.sweep(request.asked(options), options.models.split(), jobs, make)
