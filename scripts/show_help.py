#!/usr/bin/env python3
"""Print the help page: each target and variable of the Makefile with its sentence, and the current values of the variables.

    make help
    EVALMAKE_TASKS="capitals" scripts/show_help.py

Needs no installed package. Exit codes: 0 printed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common.errors import run_main
from helpers.steps import variables


def main(arguments: list[str]) -> None:
    """Print the page on stdout."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(arguments)
    print(variables.page())


if __name__ == "__main__":
    run_main(main)
