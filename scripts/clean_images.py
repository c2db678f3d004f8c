#!/usr/bin/env python3
"""Remove squashed images that no run here uses from a cluster's cache: list them, ask, remove.

    scripts/clean_images.py --profile MY-CLUSTER

Exit codes: 0 done, or nothing to do; 1 something could not be removed; 2 no such profile, or no terminal to ask on; 3 the cluster did
not answer.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags
from helpers.steps import clean_images

parser = command_line.parser(__doc__)
parser.add_argument("--profile", help="profile of env.toml that names the cluster")
parser.add_argument("--yes", default="0", metavar="1", help="remove without asking")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    clean_images.clean(options.profile, flags.is_yes("YES", options.yes))
