#!/usr/bin/env python3
"""Start a config of your own: copies configs/template.yaml to configs/NAME.yaml, never over a file that is there.

    scripts/new_config.py --config my-model

Exit codes: 0 written, 2 no name, a name that is a path, or the file is there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common.errors import run_main
from helpers.steps import new_config


def main(arguments: list[str]) -> None:
    """Copy the template."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="", help="name of the new config")
    options = parser.parse_args(arguments)
    new_config.start(options.config)


if __name__ == "__main__":
    run_main(main)
