#!/usr/bin/env python3
"""Make the tables of README.md anew from the Makefile, the schemas and the starter tasks.

    scripts/write_readme.py
    scripts/write_readme.py --check

Exit codes: 0 written, or up to date; 1 with --check when README.md is not up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import files
from helpers.common.errors import StepFailed, run_main
from helpers.dev import readme


def main(arguments: list[str]) -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether README.md is up to date")
    options = parser.parse_args(arguments)
    text = files.read_text(readme.README)
    made = readme.filled(text)
    if made == text:
        return
    if options.check:
        raise StepFailed("README.md is not what the Makefile, the schemas and the tasks say; run scripts/write_readme.py")
    files.write_text(readme.README, made)


if __name__ == "__main__":
    run_main(main)
