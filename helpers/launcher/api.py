"""The one door to nemo-evaluator-launcher: imported here only (0.9 s), kept quiet, without telemetry, and with its catalogue read once.

Names replaced in launcher 0.2.6, each held by a test: `load_tasks_mapping` in api.functional (tests/helpers/launcher); and those
of helpers/executors/slurm/job_scripts.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from helpers.common.errors import StepFailed, one_line
from helpers.config import catalogue

TELEMETRY = "NEMO_EVALUATOR_TELEMETRY_LEVEL"
_LOG_LEVELS = ("NEMO_EVALUATOR_LOG_LEVEL", "LOG_LEVEL")
_quieted: set[str] = set()
_persons: list[tuple[TextIO, TextIO]] = []  # stdout and stderr as they were


def quiet_environment() -> None:
    """Set what the launcher reads when it is imported: telemetry off unless the user set it, warnings only."""
    os.environ.setdefault(TELEMETRY, "0")
    for name in _LOG_LEVELS:
        if name not in os.environ:
            os.environ[name] = "WARNING"
            _quieted.add(name)


def environment() -> dict[str, str]:
    """Our environment for jobs: without telemetry, but with the log levels that the user set or did not set."""
    return {TELEMETRY: "0", **{name: value for name, value in os.environ.items() if name not in _quieted}}


@contextlib.contextmanager
def talking_to(log: Path | None) -> Iterator[None]:
    """What the launcher prints goes to `log` (appended), or nowhere, and not between our own lines."""
    target = log or Path(os.devnull)
    _persons.append((sys.stdout, sys.stderr))
    try:
        with target.open("a", encoding="utf-8") as handle, contextlib.redirect_stdout(handle), contextlib.redirect_stderr(handle):
            yield
    finally:
        _persons.pop()


@contextlib.contextmanager
def talking_to_the_person() -> Iterator[None]:
    """Inside of talking_to: what we ourselves have to say, while the launcher calls us, goes to the person all the same."""
    stdout, stderr = _persons[-1] if _persons else (sys.stdout, sys.stderr)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield


def run_eval(config: dict[str, Any], log: Path | None = None) -> str:
    """Hand a resolved config to the launcher; returns the invocation id (16 hex digits).

    Raises StepFailed with the launcher's own words, or the EvalmakeError of an executor of ours.
    """
    quiet_environment()
    with talking_to(log):
        from nemo_evaluator_launcher.api import functional
        from omegaconf import OmegaConf

        from helpers.executors.process import executor  # noqa: F401  registers itself

        functional.load_tasks_mapping = task_mapping  # type: ignore[attr-defined]
        try:
            invocation = functional.run_eval(OmegaConf.create(config))  # type: ignore[arg-type]
        except (ValueError, RuntimeError, AttributeError, KeyError, OSError) as error:
            raise StepFailed(f"nemo-evaluator-launcher refused the evaluation: {one_line(error)}") from error
    if not invocation:
        raise StepFailed("nemo-evaluator-launcher gave no invocation id; see logs/launcher.log of the run")
    return str(invocation)


def status(invocation_id: str) -> list[dict[str, Any]]:
    """The launcher's own status of an invocation: one dict a job (job_id, status, progress, data)."""
    quiet_environment()
    with talking_to(None):
        from nemo_evaluator_launcher.api import functional

        answer: list[dict[str, Any]] = functional.get_status([invocation_id])
    return answer


def task_mapping(*_arguments: Any, **_options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The launcher's task mapping, from our catalogue: with the harnesses installed here, and 0.1 s once instead of 1.4 s a call."""
    return {
        key: {
            "task": task.name,
            "harness": task.harness,
            "endpoint_type": task.endpoint_types[0],
            "container": task.container or "",
            "description": task.description,
        }
        for key, task in catalogue.load().items()
    }


def kill(invocation_id: str) -> int:
    """Have the launcher stop an invocation; returns how many jobs it stopped. Raises StepFailed with its words."""
    quiet_environment()
    with talking_to(None):
        from nemo_evaluator_launcher.api import functional

        answers = functional.kill_job_or_invocation(invocation_id)
    failed = [answer for answer in answers if answer.get("status") == "error"]
    if failed:
        raise StepFailed(f"nemo-evaluator-launcher could not stop {failed[0].get('job_id')}: {one_line(failed[0].get('data'))}")
    return len(answers)


def record_resumed(job_id: str, slurm_job_id: str) -> None:
    """Note in the launcher's job database which Slurm job a task has now, as the launcher's own resume does."""
    quiet_environment()
    with talking_to(None):
        from nemo_evaluator_launcher.common.execdb import ExecutionDB

        job = ExecutionDB().get_job(job_id)
        if job is not None and job.data.get("slurm_job_id") != slurm_job_id:
            job.data["slurm_job_id"], job.data["resumed_at"] = slurm_job_id, time.time()
            ExecutionDB().write_job(job)

