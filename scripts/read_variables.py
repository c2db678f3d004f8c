#!/usr/bin/env python3
"""Check the variables that were typed, and print the ids of the runs that they mean (and `new`, for a new one).

    python3 scripts/read_variables.py --given "TASKS RUN" --run latest --goals status
    python3 scripts/read_variables.py --config local --goals eval

Called as Make reads the Makefile: needs no installed package and changes nothing.

Exit codes: 0 printed, 2 an unknown variable, or a RUN that names no single run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True  # `make -n` leaves nothing behind, no __pycache__ either

from helpers.common.errors import run_main
from helpers.steps import variables


def main(arguments: list[str]) -> None:
    """Print the answer; raises BadInput for an unknown variable or a RUN that names no single run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--given", default="", help="names of the variables on Make's command line, space-separated")
    parser.add_argument("--run", help="value of RUN, where it was given")
    parser.add_argument("--config", default="", help="value of CONFIG")
    parser.add_argument("--profile", default="", help="value of PROFILE")
    parser.add_argument("--goals", default="", help="Make's goals, space-separated")
    options = parser.parse_args(arguments)
    variables.check_names(options.given.split())
    run_ids, is_new = variables.run_ids(options.run, options.config, options.profile, options.goals.split())
    print(" ".join([*run_ids, *(["new"] if is_new else [])]))


if __name__ == "__main__":
    run_main(main)
