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

"""Write the schemas that are out of date, or name them."""
parser = command_line.parser(__doc__)
parser.add_argument("--check", action="store_true", help="write nothing; check that the files are up to date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    stale = derived_schemas.stale()
    if options.check and stale:
        raise StepFailed(f"{', '.join(stale)}: out of date; run scripts/write_schemas.py")
    for name in stale:
        files.write_text(files.SCHEMAS / name, derived_schemas.text(derived_schemas.written()[name]))
