#!/usr/bin/env python3
"""Show where a value of a run's config comes from: every place that set it, the last one wins.

    scripts/explain_value.py --origins runs/ID/origins.json --key execution.type
    scripts/explain_value.py --origins runs/ID/origins.json                   # all values

Exit codes: 0 explained, 2 no such key.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import explain

parser = command_line.parser(__doc__)
parser.add_argument("--origins", required=True, help="origins.json of the run, or - for stdin")
parser.add_argument("--key", default="", help="dotted key, or the section of several (default: all keys)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    explain.show(options.origins, options.key)
