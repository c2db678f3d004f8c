"""helpers/common/errors.py: texts on one line, and signals that interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from helpers.common import errors
from helpers.common.files import ROOT


def test_a_message_cannot_forge_a_line_or_move_the_cursor() -> None:
    assert errors.one_line("a\nerror: b\r\n  c\x1b[2J\x00\u202e\udcffé") == r"a error: b c\x1b[2J\x00\u202e\udcffé"


def test_the_nearest_known_word_is_offered_and_none_where_none_is_near() -> None:
    assert errors.nearest("opposits", ["capitals", "opposites"]) == " (did you mean opposites?)"
    assert errors.nearest("zzz", ["capitals", "opposites"]) == ""


def test_a_reader_that_closes_the_pipe_ends_a_script_in_silence() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} scripts/list_tasks.py | head -1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_sigterm_and_sighup_are_interruptions() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        errors.interruptible()
        for number in before:
            with pytest.raises(errors.Interrupted, match=signal.Signals(number).name):
                os.kill(os.getpid(), number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
