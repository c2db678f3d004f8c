"""Starts the supervisor of a jobs folder: the first time, and again when it was interrupted or killed before its jobs had ended."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from helpers.common import processes
from helpers.common.errors import StepFailed
from helpers.common.files import ROOT, shown, write_text
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.launcher import api

START_SECONDS = 30.0  # it usually takes some tenths of a second
SHUTDOWN = "NEMO_EVALUATOR_SHUTDOWN_TIMEOUT_SECONDS"  # 30 by default, for which a person who pressed Ctrl-C would wait


def write_plan(jobs: Path, plan: dict[str, Any], supervisor: str) -> None:
    """Write run_all.sequential.sh, which runs the module `supervisor` on a jobs folder, and last plan.json: then the jobs exist."""
    lines = [
        "#!/usr/bin/env bash",
        "# Runs the tasks of this folder that have not ended. `nemo-evaluator-launcher resume` calls it too.",
        'cd "$(dirname "$0")"',
        f"export {process_jobs.MARK}={plan['invocation_id']}",
        f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export {api.TELEMETRY}=${{{api.TELEMETRY}:-0}} {SHUTDOWN}=${{{SHUTDOWN}:-3}}",
        f"exec {shlex.quote(sys.executable)} -m {supervisor} .",
    ]
    write_text(jobs / "run_all.sequential.sh", "\n".join(lines) + "\n", mode=0o755)
    write_text(jobs / process_jobs.PLAN, json.dumps(plan, indent=2))


def start(jobs: Path, owner: int | None = None) -> None:
    """Start the supervisor in a session of its own, and wait until it holds the lock. Raises StepFailed when it does not start.

    The jobs end when the process with the pid `owner` does. When the wait is interrupted, nothing is left running and the jobs stay open.
    """
    plan = job_folder.read(jobs / process_jobs.PLAN) or {}
    variables = {process_jobs.MARK: plan["invocation_id"], **({process_jobs.OWNER: str(owner)} if owner else {})}
    try:
        command, log = ["bash", "run_all.sequential.sh"], jobs / "supervisor.log"
        process = processes.start(command, log, jobs, {**api.environment(), **variables})
        _wait_for_lock(jobs, process)
    except BaseException:
        process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        raise


def _wait_for_lock(jobs: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not process_jobs.is_supervised(jobs):
        # A supervisor whose tasks all failed at once may have ended already; then it left its pid.
        if (job_folder.read(jobs / process_jobs.SUPERVISOR) or {}).get("pid") == process.pid:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise StepFailed(f"the supervisor did not start; see {shown(jobs / 'supervisor.log')}")
        time.sleep(0.02)


def start_again(jobs: Path, owner: int | None = None) -> list[dict[str, Any]]:
    """Start a supervisor when none is alive and tasks are open; returns those tasks, none when there is nothing to do."""
    if process_jobs.is_supervised(jobs):
        return []
    if left := process_jobs.open_tasks(jobs):
        start(jobs, owner)
    return left
