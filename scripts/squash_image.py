#!/usr/bin/env python3
"""Get every container image of a run onto the cluster as a .sqsh file, and write images.json: where each is, and how it got there.

    scripts/squash_image.py --config runs/ID/config.yaml --out runs/ID/images.json
    scripts/squash_image.py --reference docker://nvcr.io/nvidia/nemo:25.11 --profile MY-CLUSTER

Exit codes: 0 all are there (or left as they are, with the reason), 1 an import failed, 2 a reference or profile is wrong, 3 the cluster
does not answer, 130 interrupted: imports that have begun keep running, and the same command finds them.
"""

import _project  # noqa: F401
from helpers.common import command_line, flags, run_folder, step
from helpers.common.errors import BadInput, interruptible
from helpers.steps import squash_images

parser = command_line.parser(__doc__)
parser.add_argument("--config", help="config.yaml of the run, or - for stdin")
parser.add_argument("--reference", help="one image, instead of those of a config")
parser.add_argument("--profile", help="with --reference: the cluster, a profile of env.toml")
parser.add_argument("--out", default="-", help="images.json to write, or - for stdout")
parser.add_argument("--force", default="0", metavar="1", help="import again; the old file stays until the new one is complete")
parser.add_argument("--imports", default=str(squash_images.AT_ONCE), metavar="N", help="how many imports at a time (%(default)s)")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if bool(options.config) == bool(options.reference):
        raise BadInput("give either --config or --reference")
    force, at_once = flags.is_yes("FORCE_SQUASH", options.force), flags.count("IMPORTS", options.imports, "imports")
    interruptible()
    with step.recorded(run_folder.run_of(options.out), squash_images.STEP):
        if options.reference:
            squash_images.by_hand(options.reference, options.profile, options.out, force, at_once)
        else:
            squash_images.squash(options.config, options.out, force, at_once)
