#!/usr/bin/env python3
"""Check the variables that were typed, and print the ids of the runs that they mean.

    python3 scripts/read_variables.py --typed RUN --value RUN=latest --goals status
    python3 scripts/read_variables.py --value CONFIG=local --value VERBOSE=1 --goals eval

After the ids comes `new` for a new run, and `local` when its config uses the local model server. Make calls it while it reads the
Makefile, so it needs no installed package and changes nothing.

Exit codes: 0 printed, 2 an unknown variable, a value that cannot be right, or a RUN that does not name one run.
"""

import sys

sys.dont_write_bytecode = True  # `make -n` leaves nothing behind, not even __pycache__

import _project  # noqa: F401
from helpers.common import command_line, run_folder
from helpers.steps import variables

parser = command_line.parser(__doc__)
parser.add_argument("--typed", default="", help="names of the variables on Make's command line, separated by spaces")
parser.add_argument("--value", action="append", default=[], metavar="NAME=VALUE", help="a variable that was given; can be repeated")
parser.add_argument("--goals", default="", help="Make's goals, separated by spaces")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    values = {name: value for name, _, value in (pair.partition("=") for pair in options.value)}
    variables.check(options.typed.split(), values)
    run_ids, is_new = variables.run_ids(values.get("RUN"), values.get("CONFIG", ""), values.get("PROFILE", ""), options.goals.split())
    local = variables.uses_local_server(run_folder.RUNS / run_ids[0], values)
    print(" ".join([*run_ids, *(["new"] if is_new else []), *(["local"] if local else [])]))
