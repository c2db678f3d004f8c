"""Running tasks again that ended without results, in the same run."""

from __future__ import annotations

from pathlib import Path

from helpers.common import console
from helpers.common.errors import BadInput
from helpers.config import tasks as tasks_of
from helpers.executors.process import jobs as process_jobs
from helpers.executors.slurm import executor as slurm
from helpers.steps import show, status


def resume(submission_path: Path, tasks: list[str]) -> None:
    """Start again each task (all, or those named) that ended without success; those with results stay as they are, those at work too.

    Raises BadInput for a task that the run does not have or an executor that cannot resume, Unreachable, StepFailed.
    """
    submission = show.submission_of(str(submission_path))
    chosen = {job["index"] for job in show.chosen_jobs(submission, tasks)}
    if submission["executor"] not in ("slurm", "process"):
        raise BadInput(f"executor {submission['executor']}: `nemo-evaluator-launcher resume {submission['invocation_id']}` does it")
    seen = status.ask(submission)
    again = [job for job in seen["jobs"] if job["index"] in chosen and job["state"] in status.ENDED and job["state"] != "SUCCEEDED"]
    run = submission_path.parent
    # They were made when these tasks had failed. They go first: whatever becomes of this process, `make eval` looks at the tasks anew.
    for name in ("results.json", "status.json") if again else ():
        (run / name).unlink(missing_ok=True)
    if submission["executor"] == "slurm":
        queued = slurm.EXECUTOR.resume(submission, seen["jobs"], [job["index"] for job in again])
    else:
        for job in submission["jobs"]:
            if job["index"] in {one["index"] for one in again}:
                process_jobs.reopen(Path(job["job_dir"]))
        queued = {job["index"]: "" for job in again}
    if not queued:
        console.done("nothing to run again: no task has ended without results")
        return
    labels = tasks_of.labels(submission["jobs"])
    for job in submission["jobs"]:
        if job["index"] in queued:
            number = queued[job["index"]]
            console.done(f"{labels[job['index']]}: {f'queued as {number}' if number else 'open again'}")
    console.say(f"`make eval RUN={run.name}` {'follows them' if submission['executor'] == 'slurm' else 'runs them'}")
