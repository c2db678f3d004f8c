#!/usr/bin/env python3
"""Copy configs/template.yaml to a new config, configs/NAME.yaml. Never overwrites a file.

    scripts/new_config.py --config my-model

Exit codes: 0 written, 2 no name, a path instead of a name, or the file exists.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import new_config

parser = command_line.parser(__doc__)
parser.add_argument("--config", default="", help="name of the new config")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    new_config.start(options.config)
