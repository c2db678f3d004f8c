#!/usr/bin/env python3
"""Evaluate several models that are named by artifact, one run each, and show one table: models as rows, scores as columns.

    scripts/sweep.py --models "sft:v1 sft:v2 rl:latest" --profile MY-CLUSTER --tasks "adlr_mmlu hellaswag"
    scripts/sweep.py --models "sft:v1 sft:v2 rl:latest" --profile MY-CLUSTER --tasks "adlr_mmlu hellaswag" --jobs 4

On a cluster the models run side by side, over one connection, at most --jobs jobs at a time; on this machine one after another. Given again
after an interruption, it goes on: what it made lies in runs/sweeps/ID/.

Exit codes: 0 all have scores, 1 some model could not be evaluated, 2 bad input, 3 the cluster or W&B could not be asked, 4 some task
failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common.errors import interruptible, run_main
from helpers.steps import request, sweep


def main(arguments: list[str]) -> None:
    """Make the sweep, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="models by artifact, separated by spaces")
    parser.add_argument("--jobs", help="on Slurm: at most so many jobs at a time (no cap)")
    parser.add_argument("--make", default="make", help="the GNU Make to call")
    parser.add_argument("--imports", help="how many images are imported at a time")
    parser.add_argument("--keep-partial", help="1: when Slurm refuses a task, the jobs of the others stay")
    request.add_arguments(parser)
    options = parser.parse_args(arguments)
    interruptible()
    handed_on = {"IMPORTS": options.imports, "KEEP_PARTIAL": options.keep_partial}
    make = [options.make, *(f"{name}={value}" for name, value in handed_on.items() if value is not None)]
    sweep.sweep(request.asked(options), options.models.split(), sweep.cap(options.jobs), make)


if __name__ == "__main__":
    run_main(main)
