#!/usr/bin/env python3
"""Show what an evaluation will take: tasks, images, credentials, GPU-hours at most. Contacts nothing.

    scripts/show_plan.py --config runs/ID/config.yaml
    scripts/show_plan.py --config runs/ID/config.yaml --scripts      # with the job script of each task

Exit codes: 0 shown (also with credentials missing), 2 the config cannot be read.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags
from helpers.steps import plan

parser = command_line.parser(__doc__)
parser.add_argument("--config", required=True, help="config.yaml of the run, or - for stdin")
parser.add_argument("--scripts", default="0", metavar="1", help="add the job script of each task")
parser.add_argument("--remote", default="0", metavar="1", help="ask the cluster which images it has")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    plan.show(options.config, flags.is_yes("VERBOSE", options.scripts), flags.is_yes("REMOTE", options.remote))
