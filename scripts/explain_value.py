#!/usr/bin/env python3
"""Show where a value of a run's config comes from: every place that set it, the last one wins.

    scripts/explain_value.py --origins runs/ID/origins.json --key execution.type
    scripts/explain_value.py --origins runs/ID/origins.json                   # all values

Exit codes: 0 explained, 2 no such key.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.common import command_line
from helpers.steps import explain


def main(arguments: list[str]) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--origins", required=True, help="origins.json of the run, or - for stdin")
    parser.add_argument("--key", default="", help="dotted key, or the section of several (default: all keys)")
    options = parser.parse_args(arguments)
    explain.show(options.origins, options.key)


if __name__ == "__main__":
    command_line.run(main)
