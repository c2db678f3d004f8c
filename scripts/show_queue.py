#!/usr/bin/env python3
"""Show the queue of a cluster's partition: one row per job, yours first and marked, with Slurm's reason in a sentence.

    scripts/show_queue.py --profile MY-CLUSTER
    scripts/show_queue.py --profile MY-CLUSTER --partition all --most 50

Exit codes: 0 shown, 2 no such profile, or not one of a Slurm cluster, 3 the cluster did not answer.
"""

import _project  # noqa: F401
from helpers.common import command_line
from helpers.steps import queue

parser = command_line.parser(__doc__)
parser.add_argument("--profile", help="profile of env.toml")
parser.add_argument("--partition", help="instead of the profile's partition: another one, or all")
parser.add_argument("--most", type=int, default=200, help="how many jobs at most (default 200)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    queue.show(options.profile, options.partition, options.most)
