#!/usr/bin/env python3
"""Print the help page: each target and variable of the Makefile with its sentence, and the current values of the variables.

    make help
    EVALMAKE_TASKS="capitals" scripts/show_help.py

Needs no installed package. Exit codes: 0 printed, 2 bad usage.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import variables

command_line.parser(__doc__).parse_args()

with command_line.errors_as_exit_codes():
    print(variables.page())
