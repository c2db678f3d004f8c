"""helpers/common/command_line.py: one line and an exit code for what is expected, a traceback for what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from checkout import ROOT
from helpers.common import command_line, errors


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
    with pytest.raises(SystemExit) as ended, command_line.errors_as_exit_codes():
        raise error
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_reader_that_closes_the_pipe_ends_the_script_in_silence() -> None:
    program = "from helpers.common import command_line\nwith command_line.errors_as_exit_codes():\n    print('x' * 1000000)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert (process.stderr.read(), process.wait()) == (b"", 1)


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), command_line.errors_as_exit_codes():
        _ = 1 // 0
    monkeypatch.setenv("EVALMAKE_DEBUG", "1")
    with pytest.raises(SystemExit) as ended, command_line.errors_as_exit_codes():
        raise errors.BadInput("x")
    assert ended.value.code == errors.BadInput("").exit_code, "the exit code stays"
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("error: x\n")
