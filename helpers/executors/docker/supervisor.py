"""Runs the jobs of one invocation in containers of this machine, each by the run.sh that the launcher wrote for it.

    python -m helpers.executors.docker.supervisor runs/ID/jobs/TIME-INVOCATION

It keeps the rules of helpers/executors/process/supervisor.py: nothing that it starts outlives it, containers included.
"""

import contextlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

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
    # The scripts are stopped first, so that none starts another container.
    supervisor.supervise(jobs, run, lambda: daemon.remove(jobs))


def run(jobs: Path, plan: dict[str, Any], _is_owned: bool) -> None:
    """Run every task that has not ended, also one that is opened again meanwhile: one after another, or those that are open at once."""
    (jobs / KILLED).unlink(missing_ok=True)
    while tasks := [task for task in plan["tasks"] if process_jobs.is_open(jobs / task["dir"])]:
        started = [(task, start(jobs / task["dir"], task)) for task in (tasks if plan["parallel"] else tasks[:1])]
        for task, script in started:
            finish(jobs / task["dir"], task, script, plan["served"])
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


def finish(folder: Path, task: dict[str, Any], script: "subprocess.Popen[bytes]", is_served: bool) -> None:
    """Wait for a task's run.sh, remove what it left, and write down how the task ended unless the script did, or `make cancel`.

    When its model server ends first, the task is stopped: the harness would retry for minutes.
    """
    while script.poll() is None and job_folder.exit_code(folder) != process_jobs.CANCELLED_CODE:
        with contextlib.suppress(subprocess.TimeoutExpired):
            script.wait(1)
        if is_served and containers_of(script) == {"client"}:
            lines = job_folder.tail(folder / "logs" / "server_stdout.log") or ["its log is empty"]
            supervisor.fail(folder, f"the model server ended while the task ran: {lines[-1][:300]}")
            break
    kill(task["job_id"])
    ended = script.wait()
    with contextlib.suppress(Unreachable):  # the task failed for the same reason, and says it
        daemon.remove(folder)
    if process_jobs.is_open(folder):
        supervisor.fail(folder, f"run.sh ended with code {ended}; see logs/stdout.log")


def kill(job_id: str) -> None:
    """Kill the processes of a job, except ourselves."""
    for process in (left := processes.family(lambda one: one.environ().get(processes.JOB_MARK) == job_id)):
        with contextlib.suppress(psutil.Error):
            process.kill()
    processes.wait_until_ended(left, processes.GRACE_SECONDS)


def containers_of(script: "subprocess.Popen[bytes]") -> set[str]:
    """Which of its containers a run.sh has running, by the names that the launcher gives them: `server`, `client`."""
    found = set()
    for process in processes.family(lambda one: one.pid == script.pid):
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            found |= {name.partition("-")[0] for option, name in itertools.pairwise(command) if option == "--name"}
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
