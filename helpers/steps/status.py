"""Where the jobs of a submission stand, for every executor, as rows of status.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from helpers.common import run_folder, yaml_files
from helpers.common.errors import Unreachable
from helpers.executors import endpoint_failures
from helpers.executors.process import jobs
from helpers.executors.scores import has_scores

if TYPE_CHECKING:
    from helpers.executors.slurm.asking import Question

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
        from helpers.cluster import connection
        from helpers.executors.slurm import asking

        return document_of(submission, asking.ask(connection.of_submission(submission), [submission]), 0)
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
    documents: dict[int, dict[str, Any]] = {}
    failures = []
    clusters: dict[str, list[int]] = {}
    for number, submission in enumerate(submissions):
        if submission["executor"] == "slurm":
            clusters.setdefault(repr(submission["cluster"]), []).append(number)
        else:
            documents[number] = ask(submission)
    if clusters:
        from helpers.cluster import connection
        from helpers.executors.slurm import asking
    for numbers in clusters.values():
        asked = [submissions[number] for number in numbers]
        try:
            question = asking.ask(connection.of_submission(asked[0]), asked)
        except Unreachable as error:
            failures.append(error)
            for number in numbers:
                documents[number] = _document(submissions[number], asking.unreachable_rows(submissions[number], str(error)))
        else:
            documents |= {number: document_of(submissions[number], question, place) for place, number in enumerate(numbers)}
    return [documents[number] for number in range(len(submissions))], failures


def document_of(submission: dict[str, Any], question: Question, number: int) -> dict[str, Any]:
    """The status of the submission `number` of a question that was asked of its cluster."""
    return _document(submission, question.rows(number), list(question.asked.problems))


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
        config = yaml_files.load((job_dir / "run_config.yml").read_text(encoding="utf-8"))
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
