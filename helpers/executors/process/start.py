"""Starting the supervisor of a jobs folder: the first time, and again when it was interrupted or killed before its jobs had ended."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from helpers.common.errors import StepFailed
from helpers.common.files import shown
from helpers.executors.process import jobs as process_jobs
from helpers.launcher import api

START_SECONDS = 30.0  # a few tenths are usual


def start(jobs: Path, owner: int | None = None) -> None:
    """Start the supervisor in a session of its own, and wait until it holds its folder. Raises StepFailed when it does not come up.

    With `owner`, a pid, the jobs end when that process does. Interrupted while it waits, it leaves nothing running, and the jobs open.
    """
    plan = process_jobs.read(jobs / process_jobs.PLAN) or {}
    variables = {process_jobs.MARK: plan["invocation_id"], **({process_jobs.OWNER: str(owner)} if owner else {})}
    try:
        with (jobs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "run_all.sequential.sh"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=jobs,
                env={**api.environment(), **variables},
                start_new_session=True,
            )
        _wait_until_it_holds(jobs, process)
    except BaseException:
        process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        raise


def _wait_until_it_holds(jobs: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not process_jobs.is_supervised(jobs):
        # One whose tasks all failed at once may have come and gone before it was looked at: then it left its pid.
        if (process_jobs.read(jobs / process_jobs.SUPERVISOR) or {}).get("pid") == process.pid:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise StepFailed(f"the supervisor did not start; see {shown(jobs / 'supervisor.log')}")
        time.sleep(0.02)


def go_on(jobs: Path, owner: int | None = None) -> list[dict[str, Any]]:
    """Start the supervisor again when it is gone and tasks are open; returns those tasks, an empty list when there is nothing to do."""
    if process_jobs.is_supervised(jobs):
        return []
    left = process_jobs.open_tasks(jobs)
    if left:
        start(jobs, owner)
    return left


def owner_of_this_step() -> int | None:
    """The process whose end is to end the jobs (EVALMAKE_OWNER), or None."""
    value = os.environ.get(process_jobs.OWNER, "")
    return int(value) if value.isdigit() else None
