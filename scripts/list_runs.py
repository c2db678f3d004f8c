#!/usr/bin/env python3
"""List the runs, newest first, with their mode, config, tasks and last known state.

    scripts/list_runs.py
    scripts/list_runs.py --match hosted --most 100

Reads only the runs that it shows, so 10,000 runs take no longer than twenty. Exit codes: 0 listed, 2 bad usage.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import listings


def main(arguments: list[str]) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--match", default="", help="only runs with this text in their id")
    parser.add_argument("--most", type=int, default=20, help="how many to show at most (default: 20)")
    options = parser.parse_args(arguments)
    listings.show_runs(options.match, options.most)


if __name__ == "__main__":
    command_line.run(main)
