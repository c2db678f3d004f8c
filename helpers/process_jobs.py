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
import json
import os
import re
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

PLAN, SUPERVISOR, LOCK = "plan.json", "supervisor.json", "supervisor.lock"
# Marks every process of an invocation, so that all of them can be found, also when those that started them are gone.
MARK = "EVALMAKE_INVOCATION"
# The variable that names where the harness posts its progress to.
PROGRESS_URL = "EVALMAKE_PROGRESS_URL"
# Written by nemo-evaluator when it is interrupted (core/evaluate.py); the stock `status` reads such a job as killed.
INTERRUPTED_MARKER = ".nemo_evaluator_interrupted"
CANCELLED_CODE = 128 + signal.SIGTERM
GRACE_SECONDS = 4.0  # nemo-evaluator itself is told to take at most 3
ERROR_LINE = re.compile(r"error|exception|refused|denied|not found|no such|failed|killed", re.IGNORECASE)


def stamp() -> str:
    """The time in UTC with milliseconds, as the stage files hold it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def stage(job_dir: Path, name: str, code: int | None = None) -> None:
    """Write a stage file (`pre-start`, `running`, `exit`): the time, and for `exit` the exit code."""
    path = job_dir / "logs" / f"stage.{name}"
    temporary = path.with_suffix(".part")
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


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file of the jobs folder, or None when it is not there (or torn: it is written beside and renamed, so it never should be)."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return data


def is_supervised(jobs: Path) -> bool:
    """Whether the supervisor of this jobs folder is alive: its pid is there, and is still the process that wrote it (pids are reused)."""
    record = read(jobs / SUPERVISOR)
    return record is not None and _is_same(record["pid"], record["created"])


def state(job_dir: Path, supervised: bool) -> dict[str, Any]:
    """One job as a row of status.json: state, reason, exit_code, requests_done, seconds, log. Reads a handful of small files."""
    started, ended, code = stage_time(job_dir, "running"), stage_time(job_dir, "exit"), exit_code(job_dir)
    reason = ""
    if code == 0:
        name = "SUCCEEDED" if (job_dir / "artifacts" / "results.yml").exists() else "FAILED"
        reason = "" if name == "SUCCEEDED" else "the harness ended without results.yml"
    elif code is not None:
        cancelled = (job_dir / "artifacts" / INTERRUPTED_MARKER).exists() or code == CANCELLED_CODE
        name = "CANCELLED" if cancelled else "FAILED"
        reason = "" if cancelled else f"exit code {code}: {last_error(job_dir)}"
    elif not supervised:
        name = "FAILED" if started else "CANCELLED"
        reason = "the process that ran it is gone (killed, or the machine was restarted)"
    else:
        name = "RUNNING" if started else "PENDING"
    seconds = None if started is None else round((ended or time.time()) - started, 2) if ended or supervised else None
    log = job_dir / "logs" / "client_stdout.log"
    return {
        "state": name,
        "reason": reason,
        "exit_code": code,
        "requests_done": number_in(job_dir / "artifacts" / "progress"),
        "seconds": seconds,
        "log": str(log) if log.exists() else None,
    }


def last_error(job_dir: Path) -> str:
    """The line of the job's logs that best says why it failed: the last one that speaks of an error, else the last one."""
    for name in ("client_stdout.log", "server_stdout.log"):
        try:
            text = (job_dir / "logs" / name).read_bytes()[-20_000:].decode("utf-8", "replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if ERROR_LINE.search(line)]
        if telling or lines:
            return (telling or lines)[-1][:300]
    return "its logs are empty"


def processes(invocation_id: str) -> list[psutil.Process]:
    """Every live process that carries the invocation's mark in its environment: supervisor, server, harness, and what they started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == invocation_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def cancel(jobs: Path) -> int:
    """Stop everything of this jobs folder, and mark the tasks that had not ended as cancelled. Returns how many processes were stopped.

    The supervisor is asked first, since it stops its children in order; whatever is left after GRACE_SECONDS is killed. A process is only
    signalled while it carries the invocation's mark. What is left of a supervisor that was itself killed is found by the mark too.
    """
    plan = read(jobs / PLAN)
    if plan is None:
        return 0
    invocation = plan["invocation_id"]
    stopped = processes(invocation)
    record = read(jobs / SUPERVISOR)
    if record and _is_same(record["pid"], record["created"]):
        with contextlib.suppress(psutil.Error):
            supervisor = psutil.Process(record["pid"])
            supervisor.terminate()
            supervisor.wait(timeout=GRACE_SECONDS * 2 + 2)
    for wanted in (psutil.Process.terminate, psutil.Process.kill):
        left = processes(invocation)
        for process in left:
            with contextlib.suppress(psutil.Error):
                wanted(process)
        psutil.wait_procs(left, timeout=GRACE_SECONDS)
    for task in plan["tasks"]:
        mark_cancelled(jobs / task["dir"])
    return len(stopped)


def mark_cancelled(job_dir: Path) -> None:
    """Note that a job that had not ended will not: the exit stage, and the marker that the stock `status` reads as killed."""
    if exit_code(job_dir) is None:
        (job_dir / "artifacts").mkdir(parents=True, exist_ok=True)
        (job_dir / "artifacts" / INTERRUPTED_MARKER).touch()
        stage(job_dir, "exit", CANCELLED_CODE)


def _is_same(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def number_in(path: Path) -> int | None:
    """The whole number that a file holds, or None."""
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def own_record() -> dict[str, Any]:
    """What supervisor.json holds of the calling process."""
    return {"pid": os.getpid(), "created": psutil.Process().create_time()}
