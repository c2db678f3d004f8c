"""The one door to nemo-evaluator-launcher, which takes 0.9 s to import: quiet, without telemetry, and with its catalogue read once.

One name of launcher 0.2.6 is replaced here, `load_tasks_mapping` in api.functional (see the tests in tests/helpers/launcher); an executor
may replace more while it submits.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from helpers.common import run_folder
from helpers.common.errors import StepFailed, one_line
from helpers.config import catalogue

TELEMETRY = "NEMO_EVALUATOR_TELEMETRY_LEVEL"
TRUST_PRE_CMD = "NEMO_EVALUATOR_TRUST_PRE_CMD"  # consent to commands of the config's own
_LOG_LEVELS = ("NEMO_EVALUATOR_LOG_LEVEL", "LOG_LEVEL")
_quieted: set[str] = set()
_persons: list[tuple[TextIO, TextIO]] = []  # stdout and stderr as they were


@contextmanager
def quietly() -> Iterator[None]:
    """Have set what the launcher reads when it is imported: no telemetry unless the user set it, and warnings only. Undone at the end."""
    ours = {TELEMETRY: "0", **dict.fromkeys(_LOG_LEVELS, "WARNING")}
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    _quieted.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        _quieted.difference_update(added)


def environment() -> dict[str, str]:
    """Our environment for jobs: without telemetry, and with the user's own log levels."""
    return {TELEMETRY: "0", **{name: value for name, value in os.environ.items() if name not in _quieted}}


@contextmanager
def talking_to(log: Path | None) -> Iterator[None]:
    """Send what the launcher prints to the end of `log`, or nowhere, so that it does not appear between our own lines."""
    target = log or Path(os.devnull)
    _persons.append((sys.stdout, sys.stderr))
    try:
        with quietly(), target.open("a", encoding="utf-8") as handle, redirect_stdout(handle), redirect_stderr(handle):
            yield
    finally:
        _persons.pop()


@contextmanager
def talking_to_the_person() -> Iterator[None]:
    """Within talking_to: send our own output to the person all the same, while the launcher calls us."""
    stdout, stderr = _persons[-1] if _persons else (sys.stdout, sys.stderr)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        yield


def run_eval(config: dict[str, Any], log: Path | None = None, within: AbstractContextManager[object] | None = None) -> str:
    """Hand a resolved config to the launcher; returns the invocation id (16 hex digits). `within`: what is entered for the call.

    Raises StepFailed with the launcher's own words, or the EvalmakeError of an executor of ours.
    """
    with talking_to(log):
        from nemo_evaluator_launcher.api import functional
        from omegaconf import OmegaConf

        functional.load_tasks_mapping = task_mapping  # type: ignore[attr-defined]
        try:
            with within or nullcontext():
                invocation = functional.run_eval(OmegaConf.create(config))  # type: ignore[arg-type]
        except (ValueError, RuntimeError, AttributeError, KeyError, OSError) as error:
            raise StepFailed(f"nemo-evaluator-launcher refused the evaluation: {one_line(error)}") from error
    if not invocation:
        raise StepFailed("nemo-evaluator-launcher gave no invocation id; see logs/launcher.log of the run")
    return str(invocation)


def recorded_jobs(invocation_id: str, number: int) -> tuple[str, list[dict[str, Any]]]:
    """When an invocation was submitted (UTC text), and its jobs as submission.json has them, both by the launcher's job database.

    So a submission.json that is written a second time is the same. Raises StepFailed when the database lacks one of `number` jobs.
    """
    from nemo_evaluator_launcher.common.execdb import ExecutionDB

    jobs, times = [], []
    for job_id in (f"{invocation_id}.{index}" for index in range(number)):
        job = ExecutionDB().get_job(job_id)
        if job is None:
            raise StepFailed(f"the launcher's job database has no {job_id}; run the same command again")
        times.append(job.timestamp)
        places = {"slurm_job_id": "slurm_job_id", "remote_dir": "remote_rundir_path", "job_dir": "output_dir"}
        jobs.append({"job_id": job_id, **{ours: job.data.get(theirs) for ours, theirs in places.items()}})
    return run_folder.as_text(min(times)), jobs


def invocation_in(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The last invocation in the launcher's job database whose jobs are in this folder, and the config it was given; None without one."""
    from nemo_evaluator_launcher.common.execdb import ExecutionDB

    found = None
    for job in ExecutionDB().get_all_jobs().values():
        if Path(str(job.data.get("output_dir"))).is_relative_to(folder):
            found = job.invocation_id, job.config
    return found


def task_mapping(*_arguments: Any, **_options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The launcher's task mapping, from our catalogue: with the harnesses installed here, and 0.1 s once instead of 1.4 s per call."""
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


def record_resumed(job_id: str, slurm_job_id: str) -> None:
    """Write the present Slurm job of a task to the launcher's job database, as the launcher's own resume does."""
    with talking_to(None):
        from nemo_evaluator_launcher.common.execdb import ExecutionDB

        job = ExecutionDB().get_job(job_id)
        if job is not None and job.data.get("slurm_job_id") != slurm_job_id:
            job.data["slurm_job_id"], job.data["resumed_at"] = slurm_job_id, time.time()
            ExecutionDB().write_job(job)
