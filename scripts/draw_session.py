#!/usr/bin/env python3
"""Draw docs/session.svg, the terminal session in README.md, from its recording docs/session.txt.

    scripts/draw_session.py             # draw the recording
    scripts/draw_session.py --record    # first record `make eval` again (about a minute; the local model must be installed)
    scripts/draw_session.py --check     # write nothing; fail when the picture is not the recording's

Exit codes: 0 written, or up to date; 1 the command that was recorded failed, or with --check the picture is out of date.
"""

import _project  # noqa: F401
from helpers.common import command_line, files
from helpers.common.errors import StepFailed
from helpers.dev import session

parser = command_line.parser(__doc__)
parser.add_argument("--record", action="store_true", help="record the session again")
parser.add_argument("--check", action="store_true", help="write nothing; fail when docs/session.svg is out of date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    if options.record:
        files.write_text(session.RECORDING, session.record(["make", "eval"]))
    picture = session.drawn(files.read_text(session.RECORDING))
    if not options.check:
        files.write_text(session.PICTURE, picture)
    elif files.read_text(session.PICTURE) != picture:
        raise StepFailed("docs/session.svg does not show docs/session.txt; run scripts/draw_session.py")
