#!/usr/bin/env python3
"""List the profiles of env.toml with their executor, host, account and partition.

    scripts/list_profiles.py
    scripts/list_profiles.py --env-file ~/env.toml

Exit codes: 0 listed (also when there is no env.toml), 2 env.toml cannot be read.
"""

from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import listings

parser = command_line.parser(__doc__)
parser.add_argument("--env-file", type=Path, help="env.toml to read (default: the one that applies to configs/)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    listings.show_profiles(options.env_file)
