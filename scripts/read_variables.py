#!/usr/bin/env python3
"""Check the variables that were typed, and print the id of the run they mean. Make calls this while it reads the Makefile.

    python3 scripts/read_variables.py --given "TASKS RUN" --run latest --goals status
    python3 scripts/read_variables.py --config local --goals eval

Needs no installed package and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True  # `make -n` leaves nothing behind, no __pycache__ either

from helpers import variables
from helpers.errors import run_main


def main(arguments: list[str]) -> None:
    """Print the run id; raises BadInput for an unknown variable or a RUN that names no single run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--given", default="", help="names of the variables on Make's command line, space-separated")
    parser.add_argument("--run", default="", help="value of RUN")
    parser.add_argument("--config", default="", help="value of CONFIG")
    parser.add_argument("--profile", default="", help="value of PROFILE")
    parser.add_argument("--goals", default="", help="Make's goals, space-separated")
    options = parser.parse_args(arguments)
    variables.check_names(options.given.split())
    print(variables.run_id(options.run, options.config, options.profile, options.goals.split()))


if __name__ == "__main__":
    run_main(main)
