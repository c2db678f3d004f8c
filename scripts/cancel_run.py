#!/usr/bin/env python3
"""Stop the jobs of a run for good; nothing of it is left running.

    scripts/cancel_run.py --submission runs/ID/submission.json

Exit codes: 0 stopped, or nothing was running; 2 the run was not submitted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import cancelling, run_folder
from helpers.errors import run_main


def main(arguments: list[str]) -> None:
    """Cancel every job of the submission."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submission", required=True, help="submission.json of the run")
    options = parser.parse_args(arguments)
    with run_folder.step(run_folder.run_of(options.submission), "cancel"):
        cancelling.cancel(Path(options.submission))


if __name__ == "__main__":
    run_main(main)
