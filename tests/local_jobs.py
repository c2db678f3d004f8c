"""What the tests of local jobs share: jobs folders with tasks of a few lines, waiting for a condition, and looking for what is left."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from nemo_evaluator.adapters.caching.diskcaching import Cache

from helpers.common import processes
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import launcher_executor as executor

ENDPOINT = Path(__file__).parent / "doubles" / "endpoint.py"
SCORES = "results: {tasks: {t: {metrics: {m: {scores: {s: {value: 0.5, stats: {count: 2, stderr: 0.1}}}}}}}}"
DONE = f"echo '{SCORES}' > artifacts/results.yml"
LONG = "touch artifacts/begun; sleep 600"
T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.02)
    return value


def served_by(*arguments: str) -> str:
    """A deployment command: the double of an endpoint, with these arguments."""
    return f"exec '{sys.executable}' '{ENDPOINT}' --port $PORT {' '.join(arguments)}"


def make_jobs(jobs: Path, scripts: dict[str, str], command: str | None = None, **deployment: Any) -> Path:
    """A jobs folder with one task per script, and a server with this command; nothing is started."""
    invocation = secrets.token_hex(8)
    server = {"command": command, "port": 0, "health": "/health", "readiness_timeout": 20, "env": {}, "variables": {}, **deployment}
    tasks = [
        {
            "name": name,
            "job_id": f"{invocation}.{index}",
            "dir": f"{name}.{index}",
            "path": "/v1/chat/completions",
            "env": {},
            "variables": {},
            "run_config": {"target": {"api_endpoint": {}}},
            "script": f'cd "$(dirname "$0")"\n{script}\n',
        }
        for index, (name, script) in enumerate(scripts.items())
    ]
    plan = {
        "invocation_id": invocation,
        "deployment": server if command else None,
        "tasks": tasks,
        "export": {"destinations": [], "config": {}, "env": {}},
    }
    executor.write_jobs(jobs, plan)
    return jobs


def states(jobs: Path) -> list[str]:
    """The states of the tasks, in order."""
    supervised = process_jobs.is_supervised(jobs)
    return [process_jobs.state(jobs / task["dir"], supervised)["state"] for task in plan_of(jobs)["tasks"]]


def reasons(jobs: Path) -> list[str]:
    """The reasons of the tasks, in order."""
    return [process_jobs.state(jobs / task["dir"], False)["reason"] for task in plan_of(jobs)["tasks"]]


def plan_of(jobs: Path) -> dict[str, Any]:
    """plan.json of a jobs folder, which is there."""
    plan = job_folder.read(jobs / process_jobs.PLAN)
    assert plan
    return plan


def left(jobs: Path) -> list[str]:
    """The command lines of what is left running of a jobs folder: found by the mark in the environment of every process."""
    lines = []
    for process in processes.marked(process_jobs.MARK, plan_of(jobs)["invocation_id"]):
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            lines.append(" ".join(process.cmdline()))
    return lines


def supervisor_pid(jobs: Path) -> int:
    """The pid in supervisor.json."""
    record = job_folder.read(jobs / process_jobs.SUPERVISOR)
    assert record
    return int(record["pid"])


def ended(jobs: Path) -> bool:
    """Whether the supervisor is gone."""
    return not process_jobs.is_supervised(jobs)


def kept(artifacts: Path, *bodies: bytes, request: dict[str, Any] | None = None) -> Path:
    """An artifacts folder with nemo-evaluator's own cache of these answers."""
    stored = Cache(directory=str(artifacts / "cache" / "responses"))
    for number, body in enumerate(bodies):
        stored[str(number)] = body
    if request:
        Cache(directory=str(artifacts / "cache" / "requests"))["0"] = request
    return artifacts
