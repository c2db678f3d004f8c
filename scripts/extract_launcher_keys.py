#!/usr/bin/env python3
"""Write every configuration key that the installed launcher knows to configs/schemas/launcher_keys.json.

    scripts/extract_launcher_keys.py
    scripts/extract_launcher_keys.py --check     # after a change of the pinned version: which keys are new or missing
    scripts/extract_launcher_keys.py --out -

Exit codes: 0 written, or up to date; 1 with --check when the file is out of date, or the launcher is not installed.
"""

import json

import _project  # noqa: F401
from helpers.common import command_line, console, files
from helpers.common.errors import StepFailed
from helpers.dev import launcher_keys

parser = command_line.parser(__doc__)
parser.add_argument("--out", default=str(launcher_keys.OUTPUT), help="the file to write, or to compare with (default: %(default)s)")
parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is out of date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    found = launcher_keys.extract()
    text = json.dumps(found, indent=2) + "\n"
    if not options.check:
        files.write_text(options.out, text)
        if options.out != "-":
            console.done(f"{files.shown(options.out)}: {len(found['keys'])} keys")
    elif (before := files.read_text(options.out)) != text:
        old, new = set(json.loads(before)["keys"]), set(found["keys"])
        changes = "; ".join(f"{word} {', '.join(sorted(keys))}" for word, keys in (("new:", new - old), ("missing:", old - new)) if keys)
        raise StepFailed(f"{files.shown(options.out)} is out of date ({changes or 'its places moved'}); run the script without --check")
