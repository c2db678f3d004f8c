"""How the progress and the logs of jobs are shown while they run."""

import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import Self

from helpers.common import console
from helpers.config import tasks
from helpers.executors.states import ENDED, SUCCEEDED

PLAIN_SECONDS = 30.0  # in a pipe, how often a line says how far a running task is
STYLES = {SUCCEEDED: "green", "RUNNING": "cyan", "RESUMING": "cyan", "PENDING": "", "UNKNOWN": "yellow", "UNREACHABLE": "yellow"}
ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")


class Display(AbstractContextManager["Display"]):
    """Shows the progress of jobs on stderr; this one shows none."""

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Show rows of status.json."""

    def say(self, text: str) -> None:
        """Print one line; only we put colours into it."""
        console.say(text)

    def __exit__(self, *_: object) -> None:
        """Nothing to clean up."""


@dataclass
class Plain(Display):
    """For a pipe: a line when a task changes its state, and every PLAIN_SECONDS while it runs."""

    shown: dict[str, tuple[str, float]] = field(default_factory=dict)

    def update(self, rows: list[dict[str, Any]]) -> None:
        labels = tasks.labels(rows)
        for row in rows:
            before, when = self.shown.get(row["job_id"], ("PENDING", 0.0))
            due = row["state"] == "RUNNING" and time.monotonic() - when > PLAIN_SECONDS
            now = f"{row['state']} {waits(row)}".rstrip()
            if now != before or due:
                self.shown[row["job_id"]] = (now, time.monotonic())
                details = ", ".join(part for part in (amount(row), waits(row)) if part)
                console.say(f"{labels[row['index']]:<24} {row['state']:<10} {details}".rstrip())


class Fancy(Display):
    """For a terminal: a bar for each task, redrawn in place."""

    def __init__(self) -> None:
        """Prepare the bars; each is added when its task is first seen."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self.progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]:<10}"),
            TextColumn("{task.fields[amount]}", style="dim"),
            console=console.rich_console(sys.stderr),
        )
        self.bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture on the screen."""
        self.progress.stop()

    def update(self, rows: list[dict[str, Any]]) -> None:
        from rich.markup import escape

        labels = tasks.labels(rows)
        for row in rows:
            over = row["state"] in ENDED
            total = None if _is_of_samples(row) else row["requests_total"]
            if row["job_id"] not in self.bars:
                self.bars[row["job_id"]] = self.progress.add_task(escape(labels[row["index"]]), total=None, state="", amount="")
            done = (total or 1) if row["state"] == SUCCEEDED else row["requests_done"] or 0
            whole = None if row["state"] == "RUNNING" and total is None else total or 1
            self.progress.update(
                self.bars[row["job_id"]],
                total=whole,
                completed=min(done, whole or done),
                state=f"[{'green' if row['state'] == SUCCEEDED else 'red' if over else 'cyan'}]{row['state']}[/]",
                amount=escape(waits(row)) or amount(row),
            )

    def say(self, text: str) -> None:
        """Print above the bars."""
        from rich.text import Text

        self.progress.console.print(Text.from_ansi(text), soft_wrap=True)


class Tail:
    """The log of one job on this machine, printed as it grows, each line after the task's name."""

    def __init__(self, job: dict[str, Any], which: str = "client", out: Callable[[str], None] = console.say) -> None:
        """`job` is one of a submission; `which` is client or server; `out` takes each line."""
        self.task, self.out = job["task"], out
        self.path = Path(job["job_dir"]) / "logs" / f"{which}_stdout.log" if job["job_dir"] else None
        self.began = False  # whether there is a log
        self.position = 0
        self.rest = b""

    def show(self) -> None:
        """Print the whole lines that came since the last call."""
        if self.path is None or not self.path.exists():
            return
        self.began = True
        with self.path.open("rb") as handle:
            handle.seek(self.position)
            data = self.rest + handle.read()
            self.position = handle.tell()
        *lines, self.rest = data.split(b"\n")
        for line in lines:
            self.out(f"{self.task} | {harmless(line)}")

    def finish(self) -> None:
        """Print the rest, including a last line without a line break."""
        self.show()
        if self.rest:
            self.out(f"{self.task} | {harmless(self.rest)}")
            self.rest = b""


def harmless(line: bytes) -> str:
    """A log line as text without anything that moves a cursor or changes colours. Of a bar redrawn in place, the last state remains."""
    text = ESCAPE.sub("", line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2])
    return "".join(c for c in text if c.isprintable() or c == "\t")


def waits(row: dict[str, Any]) -> str:
    """Why a job that has not ended does not run, and its expected start; empty for other jobs."""
    if row["state"] in ENDED or not row["reason"]:
        return ""
    start = f" (expected start {row['expected_start']})" if row.get("expected_start") else ""
    return f"{row['reason']}{start}"


def amount(row: dict[str, Any]) -> str:
    """`12/40 requests, 3.2 s`, as far as it is known."""
    parts = []
    if _is_of_samples(row):
        total = row["requests_total"]
        parts.append(f"{total}/{total} samples" if row["state"] == SUCCEEDED else f"{row['requests_done']} requests")
    elif row["requests_done"] is not None:
        total = f"/{row['requests_total']}" if row["requests_total"] else ""
        parts.append(f"{row['requests_done']}{total} requests")
    if row["seconds"] is not None:
        parts.append(f"{row['seconds']:.1f} s")
    return ", ".join(parts)


def _is_of_samples(row: dict[str, Any]) -> bool:
    """Whether more requests were answered than the total says: a sample with several choices takes a request for each of them."""
    return bool(row["requests_total"]) and (row["requests_done"] or 0) > row["requests_total"]
