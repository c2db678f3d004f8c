"""helpers/common/errors.py: one line and an exit code for what is expected, a traceback for what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from helpers.common import errors
from helpers.common.files import ROOT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EvalmakeError("x"), 1),
        (errors.StepFailed("x"), 1),
        (errors.BadInput("x"), 2),
        (errors.Unreachable("x"), 3),
        (errors.TaskFailed("x"), 4),
        (errors.Interrupted("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_expected_error_is_one_line_and_its_exit_code(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        errors.run_main(main)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_the_code_that_a_script_returns_is_its_exit_code() -> None:
    for given, code in ((None, 0), (0, 0), (5, 5)):
        with pytest.raises(SystemExit) as ended:
            errors.run_main(lambda _, given=given: given)  # type: ignore[misc]
        assert ended.value.code == code


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(_: list[str]) -> None:
        raise errors.BadInput("x")

    with pytest.raises(ZeroDivisionError):
        errors.run_main(lambda _: 1 // 0)
    monkeypatch.setenv("EVALMAKE_DEBUG", "1")
    with pytest.raises(errors.BadInput):
        errors.run_main(main)


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
