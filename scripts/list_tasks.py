#!/usr/bin/env python3
"""List the tasks for TASKS: those of the launcher's catalogue and of the harnesses installed here.

    scripts/list_tasks.py
    scripts/list_tasks.py --match mmlu

Exit codes: 0 listed, 2 no task matches.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import listings


def main(arguments: list[str]) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--match", default="", help="only tasks with this text in their name, harness, endpoint type or description")
    options = parser.parse_args(arguments)
    listings.show_tasks(options.match)


if __name__ == "__main__":
    command_line.run(main)
