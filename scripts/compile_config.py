#!/usr/bin/env python3
"""Compile an evaluation config: compose its defaults, merge the profile, apply the overrides, choose the tasks, resolve everything.

    scripts/compile_config.py --config local                                  # YAML on stdout
    scripts/compile_config.py --config hosted --set target.api_endpoint.model_id=m --task capitals --out my.yaml
    scripts/compile_config.py --request runs/ID/request.json --out runs/ID/config.yaml --origins runs/ID/origins.json

Exit codes: 0 written, 2 bad input (one line says what, where and the fix).
"""

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.steps import compile as compile_step
from helpers.steps import request

parser = command_line.parser(__doc__)
parser.add_argument("--request", help="request.json of a run, or - for stdin; the other arguments then come from it")
parser.add_argument("--out", default="-", help="config.yaml to write (default: stdout)")
parser.add_argument("--origins", help="origins.json to write: where each value comes from")
request.add_arguments(parser)
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if options.request:
        with step.recorded(run_folder.run_of(options.out), "compile_config"):
            compile_step.for_run(options.request, options.out, options.origins)
    else:
        compile_step.by_hand(request.build("eval", request.asked(options)), options.out, options.origins)
