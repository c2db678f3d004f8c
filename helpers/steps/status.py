"""Where the jobs of a submission stand, for every executor, as rows of status.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from helpers.common import run_folder
from helpers.common.errors import Unreachable
from helpers.executors import endpoint_failures
from helpers.executors.base import Answer
from helpers.executors.process import jobs
from helpers.executors.scores import has_scores

MADE_BY = "status.py"
# A job in one of these will not change any more.
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT", "OUT_OF_MEMORY", "NODE_FAILED", "PREEMPTED"}
# Stopped before its end by Ctrl-C or a kill; `make eval RUN=…` goes on with it.
INTERRUPTED = "INTERRUPTED"
# The launcher's words (executors/base.py: ExecutionState) in ours.
FROM_LAUNCHER = {"pending": "PENDING", "running": "RUNNING", "success": "SUCCEEDED", "failed": "FAILED", "killed": "CANCELLED"}


def ask(submission: dict[str, Any]) -> dict[str, Any]:
    """The status of a submission now: the content of status.json, unsealed. For `process` it reads a few small files a task.

    Raises Unreachable when its cluster could not be asked.
    """
    if submission["executor"] == "slurm":
        from helpers.executors.slurm import executor as slurm

        (answer,) = slurm.EXECUTOR.ask([submission])
        if answer.error:
            raise answer.error
        return document_of(submission, answer)
    rows = []
    if submission["executor"] == "process":
        supervised = jobs.is_supervised(Path(submission["jobs"][0]["job_dir"]).parent)
        for job in submission["jobs"]:
            rows.append(_row(job, jobs.state(Path(job["job_dir"]), supervised)))
    else:
        from helpers.launcher import api

        known = {answer["job_id"]: answer for answer in api.status(submission["invocation_id"])}
        for job in submission["jobs"]:
            rows.append(_row(job, _from_launcher(known.get(job["job_id"]), Path(job["job_dir"] or "."))))
    return _document(submission, rows)


def ask_all(submissions: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Unreachable]]:
    """The status of each submission, in one round trip a cluster; and why a cluster could not be asked: its jobs are UNREACHABLE then."""
    from helpers.executors.slurm import executor as slurm

    there = [one for one in submissions if one["executor"] == "slurm"]
    answers = slurm.EXECUTOR.ask(there)
    documents = iter([document_of(one, answer) for one, answer in zip(there, answers, strict=True)])
    failures = {id(answer.error): answer.error for answer in answers if answer.error}
    return [next(documents) if one["executor"] == "slurm" else ask(one) for one in submissions], list(failures.values())


def document_of(submission: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The status of a submission out of an executor's answer."""
    return _document(submission, answer.rows, list(answer.problems))


def _document(submission: dict[str, Any], rows: list[dict[str, Any]], not_asked: list[str] | None = None) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "made_from": {"submission.json": submission["seal"]},
        "asked_at": run_folder.now(),
        "invocation_id": submission["invocation_id"],
        "jobs": rows,
        **({"not_asked": not_asked} if not_asked else {}),
    }


def is_over(status: dict[str, Any]) -> bool:
    """Whether every job has ended."""
    return all(job["state"] in ENDED for job in status["jobs"])


def is_lost(status: dict[str, Any]) -> bool:
    """Whether some job has not ended and nobody runs it: killed, or interrupted. The same run goes on with it."""
    return all(job["state"] in {*ENDED, INTERRUPTED} for job in status["jobs"]) and not is_over(status)


def _row(job: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    row = {"task": job["task"], "index": job["index"], "job_id": job["job_id"], "requests_total": None, **found}
    if job["job_dir"]:
        row["requests_total"] = samples_asked(Path(job["job_dir"]))
        if row["state"] == "SUCCEEDED" and not has_scores(Path(job["job_dir"]) / "artifacts" / "results.yml"):
            row["state"], row["reason"] = "FAILED", "results.yml holds no score"
        if row["state"] == "FAILED":
            row["reason"] = endpoint_failures.explain(row["reason"], Path(job["job_dir"]))
    return row


def samples_asked(job_dir: Path) -> int | None:
    """How many samples the task asks: what the harness wrote into artifacts/total, or limit_samples; None when nobody says."""
    if (total := jobs.number_in(job_dir / "artifacts" / "total")) is not None:
        return total
    try:
        config = yaml.load((job_dir / "run_config.yml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        limit = config["config"]["params"]["limit_samples"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return None
    return limit if isinstance(limit, int) else None


def _from_launcher(answer: dict[str, Any] | None, job_dir: Path) -> dict[str, Any]:
    """A row out of the launcher's own status, for the executors that it watches itself."""
    if answer is None:
        return {"state": "UNKNOWN", "reason": "the launcher's job database does not know it", **_nothing()}
    name = FROM_LAUNCHER.get(str(answer.get("status")).lower(), "UNKNOWN")
    progress = answer.get("progress")
    done = progress.get("progress") if isinstance(progress, dict) else progress
    reason = jobs.last_error(job_dir) if name == "FAILED" else ""
    log = job_dir / "logs" / "client_stdout.log"
    return {
        **_nothing(),
        "state": name,
        "reason": reason,
        "exit_code": jobs.exit_code(job_dir),
        "requests_done": done if isinstance(done, int) else None,
        "log": str(log) if log.exists() else None,
    }


def _nothing() -> dict[str, Any]:
    return {"exit_code": None, "requests_done": None, "seconds": None, "log": None}
