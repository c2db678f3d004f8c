#!/usr/bin/env python3
"""List the models that can be named by artifact: those of the W&B project or of the folder of manifests that the config names.

    scripts/list_models.py --profile MY-CLUSTER
    scripts/list_models.py --match rl

Exit codes: 0 listed; 2 no model matches, or credentials are missing; 3 W&B or the cluster did not answer.
"""

import os

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import compile as compile_step
from helpers.steps import request, resolve_models

parser = command_line.parser(__doc__)
parser.add_argument("--match", default="", help="only models with this text in their names")
request.add_arguments(parser)
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    asked = request.build("eval", request.asked(options))
    config = compile_step.compiled_for(asked).config
    resolve_models.listing(config, options.match, request.env_folder_of(asked), os.environ)
