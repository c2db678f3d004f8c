#!/usr/bin/env python3
"""Write request.json, the first file of a run: what it is asked to do. If the file exists, check that the command asks for the same.

    scripts/new_run.py --out runs/20261122T013512Z-local-7f3a/request.json --new --config local
    scripts/new_run.py --out - --config hosted --tasks "capitals opposites" --set "target.api_endpoint.model_id=my-model"

Exit codes: 0 written or unchanged, 2 bad input, such as a missing config or a value that differs from the run's.
"""

from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.steps import request

parser = command_line.parser(__doc__)
parser.add_argument("--out", required=True, help="request.json of the run, or - for stdout")
parser.add_argument("--mode", choices=["eval", "batch", "dry-run"], help="what a new run is for (default: eval)")
parser.add_argument("--new", action="store_true", help="the run must not exist yet")
request.add_arguments(parser)
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    asked = request.asked(options)
    if options.new or options.out == "-":
        request.create(options.out, options.mode or "eval", asked)
    else:
        with step.recorded(run_folder.run_of(options.out), "new_run"):
            request.go_on(Path(options.out), options.mode, asked)
