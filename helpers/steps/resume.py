"""Running tasks again that ended without results, in the same run."""

from pathlib import Path

from helpers.common import console
from helpers.config import tasks as task_rules
from helpers.executors import registry, states, submissions
from helpers.steps import status


def resume(submission_path: Path, tasks: list[str]) -> None:
    """Run each task again (all, or those named) that ended without success; those with results or at work are left alone.

    Raises BadInput for a task that the run does not have; Unreachable, StepFailed.
    """
    submission = submissions.read(str(submission_path))
    executor = registry.get(submission["executor"])
    chosen = {job["index"] for job in submissions.chosen(submission, tasks)}
    rows = status.ask(submission)["jobs"]
    again = [row["index"] for row in rows if row["index"] in chosen and states.has_failed(row)]
    run = submission_path.parent
    # Both say that these tasks failed. They go first, so that `make eval` looks at the tasks again even when this step is killed.
    for name in ("results.json", "status.json") if again else ():
        (run / name).unlink(missing_ok=True)
    queued = executor.resume(submission, rows, again)
    if not queued:
        console.done("nothing to run again: no task has ended without results")
        return
    labels = task_rules.labels(submission["jobs"])
    for job in submission["jobs"]:
        if job["index"] in queued:
            number = queued[job["index"]]
            console.done(f"{labels[job['index']]}: {f'queued as {number}' if number else 'will run again'}")
    console.say(f"`make eval RUN={run.name}` {'follows them' if any(queued.values()) else 'runs them'}")
