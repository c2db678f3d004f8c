#!/usr/bin/env python3
"""Make the tables of docs/reference.md and docs/run-files.md from the Makefile, the schemas and the code.

    scripts/write_docs.py
    scripts/write_docs.py --check

Exit codes: 0 written, or up to date; 1 with --check when a document is out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import files
from helpers.common.errors import StepFailed, run_main
from helpers.dev import documents


def main(arguments: list[str]) -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a document is out of date")
    options = parser.parse_args(arguments)
    outdated = documents.outdated()
    if options.check and outdated:
        raise StepFailed(f"{', '.join(map(files.shown, outdated))}: tables are out of date; run scripts/write_docs.py")
    for path, text in outdated.items():
        files.write_text(path, text)


if __name__ == "__main__":
    run_main(main)
