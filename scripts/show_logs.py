#!/usr/bin/env python3
"""Print the logs of a run's tasks on stdout, each line after its task's name.

    scripts/show_logs.py --submission runs/ID/submission.json
    scripts/show_logs.py --submission runs/ID/submission.json --tasks "capitals opposites" --which server
    scripts/show_logs.py --submission runs/ID/submission.json --follow=1

Exit codes: 0 printed, 2 the run was not submitted, or no such task or log, 3 the cluster did not answer.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags
from helpers.steps import logs

parser = command_line.parser(__doc__)
parser.add_argument("--submission", required=True, help="submission.json of the run, or - for stdin")
parser.add_argument("--tasks", default="", help="only these tasks, separated by spaces")
parser.add_argument("--which", default="client", help="client: the harness's log, server: the model server's, slurm: the job's own")
parser.add_argument("--follow", default="0", metavar="1", help="print the logs as they grow, until all tasks have ended")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    logs.show(options.submission, options.tasks.split(), options.which, flags.is_yes("FOLLOW", options.follow))
