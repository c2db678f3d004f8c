#!/usr/bin/env python3
"""Print the front page: each target and variable of the Makefile with its sentence and, for variables, the value it has now.

    make help
    EVALMAKE_TASKS="capitals" scripts/show_help.py

Needs no installed package.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import variables
from helpers.errors import run_main


def main(_arguments: list[str]) -> None:
    """Print the page on stdout."""
    print(variables.page())


if __name__ == "__main__":
    run_main(main)
