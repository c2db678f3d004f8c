"""helpers/common/command_line.py: one line and an exit code for what is expected, a traceback for what is not."""

from __future__ import annotations

import pytest

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
    def main(_: list[str]) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_the_code_that_a_script_returns_is_its_exit_code() -> None:
    for given, code in ((None, 0), (0, 0), (5, 5)):
        with pytest.raises(SystemExit) as ended:
            command_line.run(lambda _, given=given: given)  # type: ignore[misc]
        assert ended.value.code == code


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> None:
        raise errors.BadInput("x")

    with pytest.raises(ZeroDivisionError):
        command_line.run(lambda _: 1 // 0)
    monkeypatch.setenv("EVALMAKE_DEBUG", "1")
    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    assert ended.value.code == errors.BadInput("").exit_code, "the exit code stays"
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("error: x\n")
