#!/usr/bin/env python3
"""List the tasks for TASKS: those of the launcher's catalogue and of the harnesses installed here.

    scripts/list_tasks.py
    scripts/list_tasks.py --match mmlu

Exit codes: 0 listed, 2 no task matches.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import listings

parser = command_line.parser(__doc__)
parser.add_argument("--match", default="", help="only tasks with this text in their name, harness, endpoint type or description")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    listings.show_tasks(options.match)
