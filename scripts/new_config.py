#!/usr/bin/env python3
"""Copy configs/template.yaml to a new config, configs/NAME.yaml. Never overwrites a file.

    scripts/new_config.py --config my-model

Exit codes: 0 written, 2 no name, a path instead of a name, or the file exists.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import new_config


def main(arguments: list[str]) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--config", default="", help="name of the new config")
    options = parser.parse_args(arguments)
    new_config.start(options.config)


if __name__ == "__main__":
    command_line.run(main)
