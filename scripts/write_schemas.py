#!/usr/bin/env python3
"""Write the executors' names into configs/schemas, and the schemas that follow from config.schema.json.

    scripts/write_schemas.py
    scripts/write_schemas.py --check

Exit codes: 0 written, or up to date; 1 with --check if a file is out of date.
"""

import _project  # noqa: F401
from helpers.common import command_line, files
from helpers.common.errors import StepFailed
from helpers.dev import derived_schemas

parser = command_line.parser(__doc__)
parser.add_argument("--check", action="store_true", help="write nothing; check that the files are up to date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    outdated = derived_schemas.outdated()
    if options.check and outdated:
        raise StepFailed(f"{', '.join(path.name for path in outdated)}: out of date; run scripts/write_schemas.py")
    for path, text in outdated.items():
        files.write_text(path, text)
