#!/usr/bin/env python3
"""List the profiles of env.toml with their executor, host, account and partition.

    scripts/list_profiles.py
    scripts/list_profiles.py --env-file ~/env.toml

Exit codes: 0 listed (also when there is no env.toml), 2 env.toml cannot be read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import listings


def main(arguments: list[str]) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--env-file", type=Path, help="env.toml to read (default: the one that applies to configs/)")
    options = parser.parse_args(arguments)
    listings.show_profiles(options.env_file)


if __name__ == "__main__":
    command_line.run(main)
