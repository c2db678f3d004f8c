#!/usr/bin/env python3
"""Make the tables of docs/reference.md and docs/run-files.md from the Makefile, the schemas and the code.

    scripts/write_docs.py
    scripts/write_docs.py --check

Exit codes: 0 written, or up to date; 1 with --check when a document is out of date.
"""

import _project  # noqa: F401
from helpers.common import command_line, files
from helpers.common.errors import StepFailed
from helpers.dev import documents

parser = command_line.parser(__doc__)
parser.add_argument("--check", action="store_true", help="write nothing; fail when a document is out of date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    outdated = documents.outdated()
    if options.check and outdated:
        raise StepFailed(f"{', '.join(map(files.shown, outdated))}: tables are out of date; run scripts/write_docs.py")
    for path, text in outdated.items():
        files.write_text(path, text)
