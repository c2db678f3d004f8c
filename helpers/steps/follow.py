"""Staying with a submission until it ends: progress per task, logs as they grow, and what Ctrl-C does."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from typing_extensions import Self

from helpers.common import console, files
from helpers.common.errors import Interrupted, StepFailed, interruptible, one_line
from helpers.config import tasks
from helpers.executors.process import jobs as process_jobs
from helpers.steps import status

ASK_SECONDS = 0.25  # local files only; a cluster is asked less often
PLAIN_SECONDS = 30.0  # in a pipe, how often a running task says how far it is


ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")


def follow(submission: dict[str, Any], submission_path: str, out: str, with_logs: bool) -> None:
    """Show progress until every job has ended, and write the last status to `out`.

    On this machine, jobs that were interrupted or killed before are gone on with. Raises Interrupted on Ctrl-C, SIGTERM and SIGHUP: the
    jobs of this machine are stopped then, and nothing is left running. Raises StepFailed when what ran the jobs was killed meanwhile.
    """
    if submission["executor"] == "slurm":
        follow_cluster(submission, submission_path, out, with_logs)
        return
    jobs = Path(submission["jobs"][0]["job_dir"]).parent if submission["executor"] == "process" else None
    try:
        listen_for_signals()
        view: Display = Fancy() if console.is_fancy(sys.stderr) and not with_logs else Plain()
        tails = [Tail(job) for job in submission["jobs"]] if with_logs else []
        if jobs:
            go_on(jobs, submission_path)
        with view:
            while True:
                seen = status.ask(submission)
                for tail in tails:
                    tail.show()
                view.update(seen["jobs"])
                if status.is_over(seen) or status.is_lost(seen):
                    break
                time.sleep(ASK_SECONDS)
            for tail in tails:
                tail.finish()
        # The model server is stopped, and results are exported, after the last task.
        while jobs and process_jobs.is_supervised(jobs):
            time.sleep(ASK_SECONDS / 5)
    except (KeyboardInterrupt, Interrupted, BrokenPipeError) as error:
        if not jobs:
            raise detached(submission_path) from error
        ignore_signals()
        process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        files.write_json(out, status.ask(submission), "status")
        raise Interrupted(
            "stopped, and nothing is left running; `make results` shows the tasks that were done, `make eval RUN=…` goes on with the others"
        ) from error
    except BaseException:
        # A terminal that is gone (EIO), a bug: nobody looks any more, so nothing may go on unseen.
        if jobs:
            ignore_signals()
            process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        raise
    if jobs and status.is_lost(seen):
        process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
    say_what_failed(seen)
    files.write_json(out, seen, "status")
    if status.is_lost(seen):
        raise StepFailed(f"the process that ran the tasks was killed; `make eval RUN={run_name(submission_path)}` goes on with them")


def detached(submission_path: str) -> Interrupted:
    """What is raised when a person leaves jobs that go on elsewhere; it says how to come back."""
    name = run_name(submission_path)
    return Interrupted(f"detached: the jobs go on; `make eval RUN={name}` attaches again, `make cancel RUN={name}` stops them")


def follow_cluster(submission: dict[str, Any], submission_path: str, out: str, with_logs: bool) -> None:
    """The same for a run on Slurm, whose jobs go on whatever becomes of this process. Raises Interrupted on Ctrl-C: it detaches."""
    from helpers.executors.slurm import following

    try:
        listen_for_signals()
        seen = following.follow(submission, with_logs, out)
    except (KeyboardInterrupt, Interrupted, BrokenPipeError) as error:
        raise detached(submission_path) from error
    say_what_failed(seen)
    files.write_json(out, seen, "status")


def say_what_failed(seen: dict[str, Any]) -> None:
    """A line for each task that has no results, with the reason, and a line with its log."""
    labels = tasks.labels(seen["jobs"])
    for job in seen["jobs"]:
        if job["state"] != "SUCCEEDED":
            console.say(one_line(f"✗ {labels[job['index']]} {job['state']}: {job['reason']}"))
            for line in job.get("errors", []):
                console.say(f"  > {one_line(line)}")
            if job["log"]:
                console.say(f"  log: {files.shown(job['log'])}")


def go_on(jobs: Path, submission_path: str) -> None:
    """Have the tasks run that a killed or interrupted supervisor left open, with the same credentials; they end when this process does."""
    if process_jobs.is_supervised(jobs) or not process_jobs.open_tasks(jobs):
        return
    from helpers.credentials import gathering
    from helpers.executors import capabilities
    from helpers.executors.process import start as process_start
    from helpers.steps import request

    config_path = Path(submission_path).with_name("config.yaml")
    if config_path.exists():
        config = files.read_yaml(config_path, "config")[0]
        is_local = capabilities.reads_local_files(config["execution"]["type"])
        found = gathering.gather(config, request.env_folder(str(config_path)), os.environ, reads_local_files=is_local)
        found.require()
        found.apply(os.environ)
    left = process_start.go_on(jobs, os.getpid())
    console.info(f"going on with what was interrupted: {', '.join(task['name'] for task in left)}")


def listen_for_signals() -> None:
    """SIGTERM and SIGHUP raise Interrupted, except a SIGHUP that is ignored already (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    interruptible()
    if ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignore_signals() -> None:
    """While the jobs are being stopped, a second Ctrl-C must not leave some of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run_name(path: str) -> str:
    """The run's id as a person would give it."""
    return "…" if path == "-" else Path(path).resolve().parent.name


class Display(AbstractContextManager["Display"]):
    """How progress is shown."""

    @abstractmethod
    def update(self, jobs: list[dict[str, Any]]) -> None:
        """Show the rows of a status."""

    def say(self, text: str) -> None:
        """One line of a log on stderr; it may hold colours of ours."""
        console.say(text)

    def __exit__(self, *_: object) -> None:
        """Nothing to tidy up."""


class Plain(Display):
    """For a pipe: a line whenever a task changes its state, and now and then how far it is."""

    def __init__(self) -> None:
        """Nothing was shown yet."""
        self.shown: dict[str, tuple[str, float]] = {}

    def update(self, jobs: list[dict[str, Any]]) -> None:
        """Print the tasks that changed."""
        labels = tasks.labels(jobs)
        for job in jobs:
            before, when = self.shown.get(job["job_id"], ("PENDING", 0.0))
            due = job["state"] == "RUNNING" and time.monotonic() - when > PLAIN_SECONDS
            now = f"{job['state']} {waits(job)}".rstrip()
            if now != before or due:
                self.shown[job["job_id"]] = (now, time.monotonic())
                told = ", ".join(part for part in (amount(job), waits(job)) if part)
                console.say(f"{labels[job['index']]:<24} {job['state']:<10} {told}".rstrip())


class Fancy(Display):
    """For a terminal: a bar a task, redrawn in place."""

    def __init__(self) -> None:
        """A bar for each task is added when it is first seen."""
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
        """Start redrawing."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture on the screen."""
        self.progress.stop()

    def update(self, jobs: list[dict[str, Any]]) -> None:
        """Move the bars."""
        from rich.markup import escape

        labels = tasks.labels(jobs)
        for job in jobs:
            over = job["state"] in status.ENDED
            total = job["requests_total"]
            if job["job_id"] not in self.bars:
                self.bars[job["job_id"]] = self.progress.add_task(escape(labels[job["index"]]), total=None, state="", amount="")
            done = (total or 1) if job["state"] == "SUCCEEDED" else job["requests_done"] or 0
            pulsing = job["state"] == "RUNNING" and total is None
            self.progress.update(
                self.bars[job["job_id"]],
                total=None if pulsing else total or 1,
                completed=done,
                state=f"[{'green' if job['state'] == 'SUCCEEDED' else 'red' if over else 'cyan'}]{job['state']}[/]",
                amount=escape(waits(job)) or amount(job),
            )

    def say(self, text: str) -> None:
        """Above the bars."""
        from rich.text import Text

        self.progress.console.print(Text.from_ansi(text), soft_wrap=True)


class Tail(nullcontext[None]):
    """The log of one job, shown as it grows, each line behind the task's name. Terminal escapes in it do nothing."""

    def __init__(self, job: dict[str, Any], which: str = "client", out: Callable[[str], None] = console.say) -> None:
        """`job` is one of a submission; `which`: client or server; `out` is given each line."""
        super().__init__()
        self.task, self.out = job["task"], out
        self.path = Path(job["job_dir"]) / "logs" / f"{which}_stdout.log" if job["job_dir"] else None
        self.position = 0
        self.rest = b""

    def show(self) -> None:
        """Print the whole lines that came since the last call."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as handle:
            handle.seek(self.position)
            data = self.rest + handle.read()
            self.position = handle.tell()
        *lines, self.rest = data.split(b"\n")
        for line in lines:
            self.out(f"{self.task} | {harmless(line)}")

    def has_file(self) -> bool:
        """Whether the log is there."""
        return self.path is not None and self.path.exists()

    def finish(self) -> None:
        """Print what is left, also a last line without its end."""
        self.show()
        if self.rest:
            self.out(f"{self.task} | {harmless(self.rest)}")
            self.rest = b""


def harmless(line: bytes) -> str:
    """A log line as text without what could move a terminal's cursor or change its colours. Of a bar redrawn in place, its last state."""
    text = ESCAPE.sub("", line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2])
    return "".join(c for c in text if c.isprintable() or c == "\t")


def waits(job: dict[str, Any]) -> str:
    """Why a job that has not ended is not at work, and when it is expected to start; empty for the others."""
    if job["state"] in status.ENDED or not job["reason"]:
        return ""
    start = f" (expected start {job['expected_start']})" if job.get("expected_start") else ""
    return f"{job['reason']}{start}"


def amount(job: dict[str, Any]) -> str:
    """`12/40 requests, 3.2 s`, as far as it is known."""
    parts = []
    if job["requests_done"] is not None:
        total = f"/{job['requests_total']}" if job["requests_total"] else ""
        parts.append(f"{job['requests_done']}{total} requests")
    if job["seconds"] is not None:
        parts.append(f"{job['seconds']:.1f} s")
    return ", ".join(parts)
