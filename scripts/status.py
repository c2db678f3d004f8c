#!/usr/bin/env python3
"""Ask where the jobs of a submission stand: a table, and status.json.

    scripts/status.py --submission runs/ID/submission.json                     # a table
    scripts/status.py --submission runs/ID/submission.json --json              # status.json on stdout
    scripts/status.py --submission runs/ID/submission.json --submission runs/ID2/submission.json --watch=1
    scripts/status.py --submission runs/ID/submission.json --out runs/ID/status.json --follow

With --follow, tasks on this machine that were interrupted or killed before are resumed; results of a cluster are fetched.
All runs on one cluster take a single round trip.

Exit codes: 0 asked (in any state), 1 what ran the tasks was killed while following, 2 the run was not submitted,
3 no answer, 130 interrupted while following.
"""

from pathlib import Path

import _project  # noqa: F401
from helpers.common import command_line, flags, run_folder, step
from helpers.common.errors import BadInput
from helpers.executors import submissions
from helpers.steps import status

parser = command_line.parser(__doc__)
parser.add_argument("--submission", required=True, action="append", help="submission.json of a run, or - for stdin; can be repeated")
parser.add_argument("--out", help="status.json to write, or - for stdout (of one run)")
parser.add_argument("--save", action="store_true", help="write status.json beside each submission.json")
parser.add_argument("--follow", action="store_true", help="show progress until all jobs have ended (of one run)")
parser.add_argument("--logs", metavar="1", help="with --follow: stream the tasks' logs (by default 1 on a cluster, 0 here)")
parser.add_argument("--watch", default="0", metavar="1", help="redraw the table in place until all jobs have ended")
parser.add_argument("--json", action="store_true", help="print status.json instead of a table, one line per run")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if len(options.submission) > 1 and (options.out or options.follow):
        raise BadInput("--out and --follow take one --submission; --save writes the status of several")
    found = [submissions.read(path) for path in options.submission]
    if options.follow:
        from helpers.steps import follow  # it imports the rules for credentials (0.05 s), which no other status needs

        logs = None if options.logs is None else flags.is_yes("VERBOSE", options.logs)
        with step.recorded(run_folder.run_of(options.submission[0]), "follow"):
            follow.follow(found[0], options.submission[0], options.out or "-", logs)
    else:
        outs = [options.out] if options.out else [str(Path(path).with_name("status.json")) for path in options.submission if options.save]
        if flags.is_yes("WATCH", options.watch):
            status.watch(found, options.submission, outs)
        else:
            status.show_all(found, options.submission, outs, options.json)
