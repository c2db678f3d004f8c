"""What a person sees while jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.executors import display


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain \xc3\xa9\n", "plain é"),
        (b"\x1b[31mred\x1b[0m and \x1b[2J\x1b[Hhome", "red and home"),
        (b"\x1b]0;title\x07text \x1b]8;;http://x\x1b\\link", "text link"),
        (b"\x1b]52;c;cHduZWQ=\x07copied", "copied"),
        (b"bell\x07 null\x00 back\x08 c1\xc2\x9b2J", "bell null back c12J"),
        (b"10%\r50%\r100%\n", "100%"),
        (b"dos line\r\n", "dos line"),
        (b"\xff\xfe not text", "\ufffd\ufffd not text"),
        (b"a\tb", "a\tb"),
        ("right-to-left \u202e trick".encode(), "right-to-left  trick"),
    ],
)
def test_a_log_line_cannot_move_the_cursor_or_change_the_terminal(line: bytes, shown: str) -> None:
    assert display.harmless(line) == shown


def test_a_growing_log_is_shown_in_whole_lines_behind_the_task_s_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "client_stdout.log"
    tail = display.Tail({"task": "mmlu", "job_dir": str(tmp_path)})
    tail.show()
    log.write_bytes(b"one\ntw")
    tail.show()
    with log.open("ab") as handle:
        handle.write(b"o\n\xc3")
    tail.show()
    with log.open("ab") as handle:
        handle.write(b"\xa9")
    tail.finish()
    assert capsys.readouterr().err == "mmlu | one\nmmlu | two\nmmlu | é\n"


def row(state: str, done: int | None = None, total: int | None = None) -> dict[str, Any]:
    return {
        "job_id": "i.0",
        "task": "mmlu",
        "index": 0,
        "state": state,
        "requests_done": done,
        "requests_total": total,
        "seconds": 2.0,
        "reason": "",
    }


@pytest.mark.parametrize(
    ("state", "done", "total", "amount"),
    [
        ("RUNNING", 30, 40, "30/40 requests, 2.0 s"),
        ("RUNNING", 100, 40, "100 requests, 2.0 s"),
        ("SUCCEEDED", 160, 40, "40/40 samples, 2.0 s"),
        ("FAILED", 160, 40, "160 requests, 2.0 s"),
        ("RUNNING", None, 40, "2.0 s"),
    ],
)
def test_no_more_is_done_than_there_is(state: str, done: int | None, total: int, amount: str) -> None:
    assert display.amount(row(state, done, total)) == amount
    fancy = display.Fancy()
    fancy.update([row(state, done, total)])
    (bar,) = fancy.progress.tasks
    assert bar.total is None or bar.completed <= bar.total


def test_in_a_pipe_a_line_is_printed_when_a_task_changes(capsys: pytest.CaptureFixture[str]) -> None:
    view = display.Plain()
    for seen in (row("PENDING"), row("RUNNING", 1, 8), row("RUNNING", 2, 8), row("SUCCEEDED", 8, 8)):
        view.update([seen])
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["mmlu", "RUNNING", "1/8", "requests,", "2.0", "s"],
        ["mmlu", "SUCCEEDED", "8/8", "requests,", "2.0", "s"],
    ]
