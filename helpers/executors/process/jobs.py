"""The jobs of a run as processes of this machine: who runs them, which are alive, and how they are stopped.

A run's jobs folder holds plan.json (what to run), supervisor.json (who runs it), sessions (of what it started), a folder for each task
(executors/job_folder.py) with the run.sh that is run, and run_all.sequential.sh. Nothing heavy is imported here: the supervisor and every
status call pay for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.common import processes
from helpers.common.errors import StepFailed
from helpers.executors import job_folder

if TYPE_CHECKING:
    import psutil

PLAN, SUPERVISOR, LOCK = "plan.json", "supervisor.json", "supervisor.lock"
# The sessions of the server and the harnesses, a number in each line.
SESSIONS = "sessions"
SERVER_LOG, CLIENT_LOG = "server.log", "logs/client_stdout.log"
# Marks every process of an invocation, so that all are found, even when the processes that started them have ended; see also `belonging`.
MARK = "EVALMAKE_INVOCATION"
# The variable with the URL that the harness posts its progress to.
PROGRESS_URL = "EVALMAKE_PROGRESS_URL"
# The pid of the process whose end stops the jobs: the `make eval` that somebody looks at.
OWNER = "EVALMAKE_OWNER"
# nemo-evaluator writes this file when it is interrupted (core/evaluate.py); the stock `status` shows such a job as killed.
INTERRUPTED_MARKER = ".nemo_evaluator_interrupted"
# Exit codes of jobs that we stopped: `make cancel` ends them for good; those that Ctrl-C interrupted are resumed by the same run.
CANCELLED_CODE = 128 + signal.SIGTERM
INTERRUPTED_CODE = 128 + signal.SIGINT


def is_open(job_dir: Path) -> bool:
    """Whether a supervisor still has to run this job: it has not ended, or was interrupted."""
    return job_folder.exit_code(job_dir) in (None, INTERRUPTED_CODE)


def open_tasks(jobs: Path) -> list[dict[str, Any]]:
    """The tasks of the plan that still have to run."""
    plan = job_folder.read(jobs / PLAN)
    return [task for task in plan["tasks"] if is_open(jobs / task["dir"])] if plan else []


def is_supervised(jobs: Path) -> bool:
    """Whether the supervisor of this jobs folder is alive: it holds a lock on the folder, which goes with it however it ends.

    A lock, unlike a pid or a time, is never reused or set back, and it can be tested from another host of a shared filesystem.
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
    """A job as part of a row of status.json: state, reason, exit_code, requests_done, seconds, log. Reads a handful of small files.

    `supervised` must be looked up before this call, since a supervisor writes the exit of a job before it ends.
    """
    started, ended = job_folder.stage_time(job_dir, "running"), job_folder.stage_time(job_dir, "exit")
    code, reason = job_folder.exit_code(job_dir), ""
    marked = (job_dir / "artifacts" / INTERRUPTED_MARKER).exists()
    if code in (None, INTERRUPTED_CODE):
        if supervised:
            name = "RUNNING" if started and code is None else "PENDING"
        else:
            cause = "the process that ran it was killed, or the machine was restarted" if code is None else "stopped before its end"
            name, reason = "INTERRUPTED", f"{cause}; `make eval RUN=…` resumes it"
    elif marked or code == CANCELLED_CODE:
        name = "CANCELLED"
    elif code == 0 and (job_dir / "artifacts" / "results.yml").exists():
        name = "SUCCEEDED"
    else:
        name = "FAILED"
        reason = f"exit code {code}: {job_folder.last_error(job_dir)}" if code else "the harness ended without results.yml"
    seconds = None
    if started is not None and (ended or supervised):
        seconds = max(0.0, round((ended or time.time()) - started, 2))
    log = job_dir / "logs" / "client_stdout.log"
    return {
        "state": name,
        "reason": reason,
        "exit_code": code,
        "requests_done": job_folder.requests_done(job_dir, code == 0),
        "seconds": seconds,
        "log": str(log) if log.exists() else None,
    }


def add_session(jobs: Path, number: int) -> None:
    """Record the session of a process that was started for the jobs."""
    with (jobs / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")


def belonging(jobs: Path) -> list[psutil.Process]:
    """Every live process of this jobs folder, except ourselves.

    It has the invocation's mark or, when it overwrote its environment, prints to a log of the server or of a harness; or it is in a
    recorded session together with such a process, or descends from one.
    """
    plan = job_folder.read(jobs / PLAN) or {"invocation_id": None, "tasks": []}
    logs = {processes.file_id(jobs / name) for name in (SERVER_LOG, *(f"{task['dir']}/{CLIENT_LOG}" for task in plan["tasks"]))}
    recorded = jobs / SESSIONS
    sessions = [int(line) for line in recorded.read_text(encoding="utf-8").split()] if recorded.exists() else []

    def is_ours(one: psutil.Process) -> bool:
        return not logs.isdisjoint(processes.outputs(one)) or one.environ().get(MARK) == plan["invocation_id"]

    return processes.family(is_ours, sessions)


def stop(jobs: Path, code: int) -> int:
    """Stop everything of this jobs folder; jobs that have not ended get the exit `code` (CANCELLED_CODE or INTERRUPTED_CODE).

    Returns the number of processes that were stopped; then none is left. The supervisor is asked first, since it stops its children in
    order; then the rest is killed, which includes what a killed supervisor left. Only what `belonging` finds is signalled, even when its
    pid is in supervisor.json. Raises StepFailed when the supervisor runs on another host, or a process does not end.
    """
    import psutil

    plan = job_folder.read(jobs / PLAN)
    if plan is None:
        return 0
    folders = [jobs / task["dir"] for task in plan["tasks"]]
    record = job_folder.read(jobs / SUPERVISOR) or {}
    if code == CANCELLED_CODE:  # before anything is stopped, so that nobody takes these for interrupted and resumes them
        mark_stopped(folders, code)
    stopped = belonging(jobs)
    for process in stopped:
        if process.pid == record.get("pid"):
            with contextlib.suppress(psutil.Error):
                process.terminate()
                processes.wait_until_ended([process], processes.GRACE_SECONDS * 4 + 2)
    left = end(jobs, (signal.SIGTERM, *[signal.SIGKILL] * 3))
    deadline = time.monotonic() + processes.GRACE_SECONDS
    while is_supervised(jobs):  # a process that has just ended may hold the lock for some microseconds more
        if time.monotonic() < deadline:
            time.sleep(0.02)
            continue
        raise StepFailed(f"a process on {record.get('host', 'another host')} runs the jobs; run the same command there")
    mark_stopped(folders, code)
    if left:
        raise StepFailed(
            f"process {', '.join(str(one.pid) for one in left)} does not end, though it was killed; run the same command again"
        )
    return len(stopped)


def end(jobs: Path, signals: Sequence[int]) -> list[psutil.Process]:
    """Send these signals, with GRACE_SECONDS after each, to what `belonging` finds; returns what is left after the last one."""
    import psutil

    for number in signals:
        if not (left := belonging(jobs)):
            return []
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        processes.wait_until_ended(left, processes.GRACE_SECONDS)
    return belonging(jobs)


def mark_stopped(folders: list[Path], code: int) -> None:
    """Give jobs that have not ended their exit stage, and the marker that makes the stock `status` show them as killed."""
    for folder in folders:
        if is_open(folder):
            (folder / "artifacts").mkdir(parents=True, exist_ok=True)
            (folder / "artifacts" / INTERRUPTED_MARKER).touch()
            job_folder.stage(folder, "exit", code)


def reopen(job_dir: Path) -> None:
    """Remove what an earlier attempt at this job left that would be taken for its end, or for its result.

    Its answers are kept, unless none of them carried anything to score: the harness would be given them again.
    """
    if (counts := (job_folder.read(job_dir / job_folder.ANSWERS) or {}).get("answers")) and not counts["scorable"]:
        shutil.rmtree(job_dir / "artifacts" / "cache", ignore_errors=True)
    for name in ("logs/stage.running", "logs/stage.exit", f"artifacts/{INTERRUPTED_MARKER}", "artifacts/results.yml"):
        (job_dir / name).unlink(missing_ok=True)
