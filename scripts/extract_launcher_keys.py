#!/usr/bin/env python3
"""Read every configuration key that the installed launcher knows out of its files, and write configs/schemas/launcher_keys.json.

    scripts/extract_launcher_keys.py
    scripts/extract_launcher_keys.py --check     # after a change of the pinned version: what is new, what is gone
    scripts/extract_launcher_keys.py --out -

Exit codes: 0 written, or the same; 1 with --check when the file is not what the launcher says, or the launcher is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import console, files
from helpers.common.errors import StepFailed, run_main
from helpers.dev import launcher_keys


def main(arguments: list[str]) -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(launcher_keys.OUTPUT), help="the file to write, or to compare with (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file is up to date")
    options = parser.parse_args(arguments)
    found = launcher_keys.extract()
    if not options.check:
        files.write_text(options.out, json.dumps(found, indent=2) + "\n")
        if options.out != "-":
            console.done(f"{files.shown(options.out)}: {len(found['keys'])} keys")
        return
    text = files.read_text(options.out)
    if text == json.dumps(found, indent=2) + "\n":
        return
    old, new = set(json.loads(text)["keys"]), set(found["keys"])
    changes = "; ".join(f"{word} {', '.join(sorted(keys))}" for word, keys in (("new:", new - old), ("gone:", old - new)) if keys)
    raise StepFailed(f"{files.shown(options.out)} is not what the launcher says ({changes or 'places moved'}); run it without --check")


if __name__ == "__main__":
    run_main(main)
