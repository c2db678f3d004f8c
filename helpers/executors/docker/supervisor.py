"""Runs the jobs of one invocation in containers of this machine, each by the run.sh that the launcher wrote for it.

    python -m helpers.executors.docker.supervisor runs/ID/jobs/TIME-INVOCATION

It keeps the rules of helpers/executors/process/supervisor.py: nothing that it starts outlives it, containers included.
"""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.common import processes
from helpers.common.errors import Unreachable
from helpers.executors import job_folder
from helpers.executors.docker import daemon
from helpers.executors.process import children, supervisor
from helpers.executors.process import jobs as process_jobs

# Where the stock `nemo-evaluator-launcher kill` writes the ids of jobs.
KILLED = "killed_jobs.txt"


def main(arguments: list[str]) -> None:
    """Run the plan in the jobs folder `arguments[0]`."""
    jobs = Path(arguments[0]).resolve()

    def end(invocation: str) -> None:
        children.end_all(invocation)  # first the scripts, so that none starts another container
        daemon.remove(jobs)

    supervisor.supervise(jobs, run, end)


def run(jobs: Path, plan: dict[str, Any], _is_owned: bool) -> None:
    """Run every task that has not ended, also one that is opened again meanwhile: one after another, or those that are open at once."""
    (jobs / KILLED).unlink(missing_ok=True)
    while tasks := [task for task in plan["tasks"] if process_jobs.is_open(jobs / task["dir"])]:
        started = [(task, start(jobs / task["dir"], task)) for task in (tasks if plan["parallel"] else tasks[:1])]
        for task, script in started:
            finish(jobs / task["dir"], task, script)
            for each in plan["tasks"]:
                if is_killed(jobs, each) and job_folder.exit_code(jobs / each["dir"]) != 0:
                    job_folder.stage(jobs / each["dir"], "exit", process_jobs.CANCELLED_CODE)


def is_killed(jobs: Path, task: dict[str, Any]) -> bool:
    """Whether the stock `kill` was given this task."""
    killed = jobs / KILLED
    return killed.exists() and task["job_id"] in killed.read_text().split()


def start(folder: Path, task: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """Start a task's run.sh in a session of its own."""
    process_jobs.reopen(folder)
    return subprocess.Popen(
        ["bash", "run.sh"],
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env=children.environment({}, {processes.JOB_MARK: task["job_id"]}),
        start_new_session=True,
    )


def finish(folder: Path, task: dict[str, Any], script: "subprocess.Popen[bytes]") -> None:
    """Wait for a task's run.sh, remove what it left, and write down how the task ended unless the script did, or `make cancel`."""
    ended = script.wait() if job_folder.exit_code(folder) is None else None  # cancelled while it was started
    processes.end_group(script, task["job_id"])
    with contextlib.suppress(Unreachable):  # the task failed for the same reason, and says it
        daemon.remove(folder)
    if process_jobs.is_open(folder):
        supervisor.fail(folder, f"run.sh ended with code {ended}; see logs/stdout.log")


if __name__ == "__main__":
    main(sys.argv[1:])
