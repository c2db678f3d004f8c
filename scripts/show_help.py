#!/usr/bin/env python3
"""Print the help page: each target and variable of the Makefile with its sentence, and the current values of the variables.

    make help
    EVALMAKE_TASKS="capitals" scripts/show_help.py

Needs no installed package. Exit codes: 0 printed, 2 bad usage.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import variables


def main(arguments: list[str]) -> None:
    command_line.parser(__doc__).parse_args(arguments)
    print(variables.page())


if __name__ == "__main__":
    command_line.run(main)
