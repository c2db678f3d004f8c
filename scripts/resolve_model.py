#!/usr/bin/env python3
"""Look up the models that a config names by artifact, and write model.json: concrete version, path, digest.

    scripts/resolve_model.py --config runs/ID/config.yaml --out runs/ID/model.json
    scripts/resolve_model.py --config config.yaml --out -

For a config without ${art:…} nothing is contacted. If model.json exists, nothing is looked up again.

Exit codes: 0 written or unchanged, 2 no such artifact or version (the message lists those that exist), 3 W&B or the cluster did not answer.
"""

import os

import _project  # noqa: F401
from helpers.common import command_line, run_folder, step
from helpers.steps import resolve_models

parser = command_line.parser(__doc__)
parser.add_argument("--config", required=True, help="config.yaml of the run, or - for stdin")
parser.add_argument("--out", required=True, help="model.json of the run, or - for stdout")
options = parser.parse_args()

with command_line.errors_as_exit_codes(), step.recorded(run_folder.run_of(options.out), "resolve_model"):
    resolve_models.resolve(options.config, options.out, os.environ)
