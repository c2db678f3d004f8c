#!/usr/bin/env python3
"""Say why something failed, with the fix: a log of any kind, or the failed tasks of a run. Contacts nothing.

    scripts/explain_failure.py slurm-1234.log server-1234.log
    ssh CLUSTER cat FOLDER/containers/.failed.TOKEN/log | scripts/explain_failure.py -
    scripts/explain_failure.py --submission runs/ID/submission.json

Exit codes: 0 printed, 2 a log that cannot be read, or a run without jobs or states.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.common.errors import BadInput
from helpers.steps import diagnose

parser = command_line.parser(__doc__)
parser.add_argument("logs", nargs="*", metavar="FILE", help="the log of an import, a job, a model server or an evaluation; - for stdin")
parser.add_argument("--submission", help="submission.json of a run: its failed tasks, by the logs that were copied here")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if options.logs:
        diagnose.show_logs(options.logs)
    elif options.submission:
        diagnose.show_tasks(options.submission)
    else:
        raise BadInput("expected a log or --submission; --help shows examples")
