#!/usr/bin/env python3
"""List the runs, newest first, with their mode, config, tasks and last known state.

    scripts/list_runs.py
    scripts/list_runs.py --match hosted --most 100

Reads only the runs that it shows, so 10,000 runs take no longer than twenty. Exit codes: 0 listed, 2 bad usage.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import listings

parser = command_line.parser(__doc__)
parser.add_argument("--match", default="", help="only runs with this text in their id")
parser.add_argument("--most", type=int, default=20, help="how many to show at most (default: 20)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    listings.show_runs(options.match, options.most)
