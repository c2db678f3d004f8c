"""The jobs of a run as processes of this machine: their folders and files, who is alive, and stopping them.

A run's jobs folder holds plan.json (what to run), supervisor.json (who runs it), and a folder a task in the layout of the launcher's local
executor, so that the stock `nemo-evaluator-launcher status|info|logs|export` read it:

    TASK.N/logs/stage.pre-start, stage.running, stage.exit ("TIME CODE"), client_stdout.log, server_stdout.log
    TASK.N/artifacts/            what the harness writes; `progress` holds the requests done
    TASK.N/run.sh                what was run

Nothing heavy is imported here: the supervisor and every status call pay for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import signal
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from helpers.common.errors import StepFailed

PLAN, SUPERVISOR, LOCK = "plan.json", "supervisor.json", "supervisor.lock"
# Marks every process of an invocation, so that all of them can be found, also when those that started them are gone.
MARK = "EVALMAKE_INVOCATION"
# Marks the processes of one task, or of the model server (INVOCATION.server).
JOB_MARK = "EVALMAKE_JOB"
# The variable that names where the harness posts its progress to.
PROGRESS_URL = "EVALMAKE_PROGRESS_URL"
# The process (its pid) whose end also ends the jobs: the `make eval` that somebody looks at.
OWNER = "EVALMAKE_OWNER"
# Written by nemo-evaluator when it is interrupted (core/evaluate.py); the stock `status` reads such a job as killed.
INTERRUPTED_MARKER = ".nemo_evaluator_interrupted"
# Exit codes of jobs that we stopped: by `make cancel`, for good; and by Ctrl-C and the like: the same run goes on with those.
CANCELLED_CODE = 128 + signal.SIGTERM
INTERRUPTED_CODE = 128 + signal.SIGINT
GRACE_SECONDS = 4.0  # nemo-evaluator itself is told to take at most 3
GOES_ON = "`make eval RUN=…` goes on with it"
# What says best why a job failed, the best first: our own line, the end of a traceback, anything that speaks of trouble.
TELLING = [
    re.compile(r"^error: "),
    re.compile(r"^[\w.]*(Error|Exception|Exit)\b.*: "),
    re.compile(r"error|exception|refused|denied|not found|no such|failed|killed", re.IGNORECASE),
]


def stamp() -> str:
    """The time in UTC with milliseconds, as the stage files hold it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def stage(job_dir: Path, name: str, code: int | None = None) -> None:
    """Write a stage file (`pre-start`, `running`, `exit`): the time, and for `exit` the exit code."""
    path = job_dir / "logs" / f"stage.{name}"
    temporary = path.with_name(f".stage.{name}.{os.getpid()}.part")
    temporary.write_text(stamp() + ("" if code is None else f" {code}") + "\n")
    temporary.replace(path)


def stage_time(job_dir: Path, name: str) -> float | None:
    """When a stage was reached, in seconds since 1970, or None."""
    try:
        text = (job_dir / "logs" / f"stage.{name}").read_text().split()[0]
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (OSError, IndexError, ValueError):
        return None


def exit_code(job_dir: Path) -> int | None:
    """The exit code of a job that ended, or None."""
    try:
        return int((job_dir / "logs" / "stage.exit").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None


def is_open(job_dir: Path) -> bool:
    """Whether a supervisor is still to run this job: it has not ended, or was interrupted."""
    return exit_code(job_dir) in (None, INTERRUPTED_CODE)


def open_tasks(jobs: Path) -> list[dict[str, Any]]:
    """The tasks of the plan that are still to be run."""
    plan = read(jobs / PLAN)
    return [task for task in plan["tasks"] if is_open(jobs / task["dir"])] if plan else []


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file of the jobs folder, or None when it is not there (or torn: it is written beside and renamed, so it never should be)."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data


def is_supervised(jobs: Path) -> bool:
    """Whether the supervisor of this jobs folder is alive: it holds the folder's lock, which goes with the process however it ends.

    No pid and no clock is asked, so neither a reused pid nor a stepped clock deceives, and on a shared filesystem another host may ask.
    """
    try:
        with (jobs / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def state(job_dir: Path, supervised: bool) -> dict[str, Any]:
    """One job as a row of status.json: state, reason, exit_code, requests_done, seconds, log. Reads a handful of small files.

    `supervised` must have been asked before: a supervisor writes the exit of a job before it goes.
    """
    started, ended, code = stage_time(job_dir, "running"), stage_time(job_dir, "exit"), exit_code(job_dir)
    reason = ""
    marked = (job_dir / "artifacts" / INTERRUPTED_MARKER).exists()
    if code in (None, INTERRUPTED_CODE):
        if supervised:
            name = "RUNNING" if started and code is None else "PENDING"
        else:
            gone = "the process that ran it is gone (killed, or the machine was restarted)"
            name, reason = "INTERRUPTED", f"{gone if code is None else 'stopped before its end'}; {GOES_ON}"
    elif marked or code == CANCELLED_CODE:
        name = "CANCELLED"
    elif code == 0 and (job_dir / "artifacts" / "results.yml").exists():
        name = "SUCCEEDED"
    else:
        name = "FAILED"
        reason = f"exit code {code}: {last_error(job_dir)}" if code else "the harness ended without results.yml"
    seconds = None
    if started is not None and (ended or supervised):
        seconds = max(0.0, round((ended or time.time()) - started, 2))
    log = job_dir / "logs" / "client_stdout.log"
    return {
        "state": name,
        "reason": reason,
        "exit_code": code,
        "requests_done": requests_done(job_dir, code == 0),
        "seconds": seconds,
        "log": str(log) if log.exists() else None,
    }


def requests_done(job_dir: Path, finished: bool) -> int | None:
    """How many requests were answered. The running count may end on an older number (two threads write it); the final one is exact."""
    if finished:
        stats = (read(job_dir / "artifacts" / "eval_factory_metrics.json") or {}).get("response_stats")
        if isinstance(stats, dict) and isinstance(stats.get("successful_count"), int):
            return int(stats["successful_count"])
    return number_in(job_dir / "artifacts" / "progress")


def tail(path: Path, size: int = 20_000) -> list[str]:
    """The last lines of a log that are not empty; only its last `size` bytes are read. Raises OSError."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - size))
        text = handle.read().decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def last_error(job_dir: Path) -> str:
    """The line of the job's logs that best says why it failed (see TELLING; the last one of its kind), else the last line."""
    for name in ("client_stdout.log", "server_stdout.log"):
        try:
            lines = tail(job_dir / "logs" / name)
        except OSError:
            continue
        for telling in TELLING:
            if found := [line for line in lines if telling.search(line)]:
                return found[-1].removeprefix("error: ")[:300]
        if lines:
            return lines[-1][:300]
    return "its logs are empty"


def processes(value: str, mark: str = MARK) -> list[psutil.Process]:
    """Every live process with this mark in its environment. Of an invocation: supervisor, server, harness, and what they started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(mark) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. One that nobody reaps counts: in a container process 1 may never do it, and psutil would wait for it."""
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; neither a zombie nor a later process with its pid does."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop(jobs: Path, code: int) -> int:
    """Stop everything of this jobs folder; jobs that had not ended get the exit `code` (CANCELLED_CODE or INTERRUPTED_CODE).

    Returns how many processes were stopped. The supervisor is asked first, since it stops its children in order; whatever is left then is
    killed. A process is only signalled while it carries the invocation's mark, also when its pid stands in supervisor.json; the mark finds
    what a killed supervisor left too. Raises StepFailed when the supervisor is none of this host's processes.
    """
    plan = read(jobs / PLAN)
    if plan is None:
        return 0
    invocation = plan["invocation_id"]
    folders = [jobs / task["dir"] for task in plan["tasks"]]
    record = read(jobs / SUPERVISOR) or {}
    if code == CANCELLED_CODE:  # before anything is stopped, so that nobody takes these for interrupted, and goes on with them
        mark_stopped(folders, code)
    stopped = processes(invocation)
    for process in stopped:
        if process.pid == record.get("pid"):
            with contextlib.suppress(psutil.Error):
                process.terminate()
                wait_gone([process], GRACE_SECONDS * 4 + 2)
    for wanted in (psutil.Process.terminate, *[psutil.Process.kill] * 3):
        if not (left := processes(invocation)):
            break
        for process in left:
            with contextlib.suppress(psutil.Error):
                wanted(process)
        wait_gone(left, GRACE_SECONDS)
    deadline = time.monotonic() + GRACE_SECONDS
    while is_supervised(jobs):  # a process that has just ended may hold the lock for some microseconds yet
        if time.monotonic() < deadline:
            time.sleep(0.02)
            continue
        raise StepFailed(f"the jobs are run by a process on {record.get('host', 'another host')}; give the command there")
    mark_stopped(folders, code)
    return len(stopped)


def cancel(jobs: Path) -> int:
    """Stop everything of this jobs folder for good; returns how many processes were stopped."""
    return stop(jobs, CANCELLED_CODE)


def mark_stopped(folders: list[Path], code: int) -> None:
    """Note that jobs that had not ended will not: the exit stage, and the marker that the stock `status` reads as killed."""
    for folder in folders:
        if is_open(folder):
            (folder / "artifacts").mkdir(parents=True, exist_ok=True)
            (folder / "artifacts" / INTERRUPTED_MARKER).touch()
            stage(folder, "exit", code)


def reopen(job_dir: Path) -> None:
    """Take away what an earlier attempt at this job left that would be taken for its end, or for its result."""
    for name in ("logs/stage.running", "logs/stage.exit", f"artifacts/{INTERRUPTED_MARKER}", "artifacts/results.yml"):
        (job_dir / name).unlink(missing_ok=True)


def number_in(path: Path) -> int | None:
    """The whole number that a file holds, or None."""
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def own_record() -> dict[str, Any]:
    """What supervisor.json holds of the calling process."""
    return {"pid": os.getpid(), "host": platform.node()}
