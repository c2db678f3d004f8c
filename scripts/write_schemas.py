#!/usr/bin/env python3
"""Write the schemas that follow from configs/schemas/config.schema.json: launcher, config_file, execution_group, deployment_group.

    scripts/write_schemas.py
    scripts/write_schemas.py --check

Exit codes: 0 written, or up to date; 1 with --check when one of them is out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import files
from helpers.common.errors import StepFailed, run_main
from helpers.dev import derived_schemas


def main(arguments: list[str]) -> None:
    """Write the schemas that are out of date, or name them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    options = parser.parse_args(arguments)
    stale = derived_schemas.stale()
    if options.check and stale:
        raise StepFailed(f"out of date: {', '.join(stale)}; run scripts/write_schemas.py")
    texts = derived_schemas.texts()
    for name in stale:
        files.write_text(files.SCHEMAS / name, texts[name])


if __name__ == "__main__":
    run_main(main)
