"""Reading submission.json, and choosing among its jobs."""

from pathlib import Path
from typing import Any

from helpers.common import files
from helpers.common.errors import BadInput, nearest
from helpers.common.files import shown
from helpers.config import tasks


def read(path: str) -> dict[str, Any]:
    """A run's submission.json. Raises BadInput, with how to submit, when there is none."""
    if path != "-" and not Path(path).exists():
        run = Path(path).parent
        if not run.is_dir():
            raise BadInput("there are no runs yet; `make eval` makes one" if run.name == "none-yet" else f"no such run: {shown(run)}")
        asked = run / "request.json"
        if asked.exists() and files.read_json(asked, "request")["mode"] == "dry-run":
            raise BadInput(f"{run.name} is a dry run, which is never submitted; `make eval` with the same variables starts a run")
        raise BadInput(f"{run.name} was not submitted; `make eval RUN={run.name}` submits it")
    return files.read_json(path, "submission")


def chosen(submission: dict[str, Any], wanted: list[str]) -> list[dict[str, Any]]:
    """The jobs of the named tasks; all jobs when no task is named. Raises BadInput for a task that the run does not have."""
    labels = tasks.labels(submission["jobs"])
    known = list(dict.fromkeys([*labels.values(), *(job["task"] for job in submission["jobs"])]))
    for task in wanted:
        if task not in known:
            raise BadInput(f"TASKS: this run has no task {task}{nearest(task, known)}; it has {', '.join(known)}")
    return [job for job in submission["jobs"] if not wanted or {job["task"], labels[job["index"]]} & set(wanted)]


def unreachable_rows(submission: dict[str, Any], why: str) -> list[dict[str, Any]]:
    """The rows of status.json for a submission whose executor did not answer."""
    empty = {"exit_code": None, "requests_done": None, "requests_total": None, "seconds": None, "log": None}
    return [
        {"task": job["task"], "index": job["index"], "job_id": job["job_id"], "state": "UNREACHABLE", "reason": why, **empty}
        for job in submission["jobs"]
    ]
