#!/usr/bin/env python3
"""Ask where the jobs of a submission stand: a table, and status.json.

    scripts/status.py --submission runs/ID/submission.json                     # a table
    scripts/status.py --submission runs/ID/submission.json --json              # status.json on stdout
    scripts/status.py --submission runs/ID/submission.json --out runs/ID/status.json --follow

With --follow, tasks on this machine that were interrupted or killed before are gone on with.

Exit codes: 0 asked (whatever the states are), 1 what ran the tasks was killed while following, 2 the run was not submitted,
3 could not ask, 130 interrupted while following.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import files, following, run_folder, show, status
from helpers.errors import run_main


def main(arguments: list[str]) -> None:
    """Ask once, or stay until the end (--follow)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submission", required=True, help="submission.json of the run, or - for stdin")
    parser.add_argument("--out", help="status.json to write, or - for stdout")
    parser.add_argument("--follow", action="store_true", help="show progress until all jobs have ended")
    parser.add_argument("--logs", action="store_true", help="with --follow: stream the tasks' logs")
    parser.add_argument("--json", action="store_true", help="print status.json instead of a table")
    options = parser.parse_args(arguments)
    submission = show.submission_of(options.submission)
    if options.follow:
        with run_folder.step(run_folder.run_of(options.submission), "follow"):
            following.follow(submission, options.submission, options.out or "-", options.logs)
        return
    seen = status.ask(submission)
    if options.out:
        files.write_json(options.out, seen, "status")
    if options.json:
        files.write_json("-", seen, "status")
    elif options.out != "-":
        show.status_table(seen)


if __name__ == "__main__":
    run_main(main)
