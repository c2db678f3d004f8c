"""Stopping the jobs of a run, for every executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.common import console, files
from helpers.common.errors import BadInput, Interrupted, StepFailed
from helpers.executors.process import jobs as process_jobs
from helpers.steps import follow, show, status


def cancel(submission_path: Path, tasks: list[str] | None = None) -> None:
    """Stop the jobs of the submission for good and say what was stopped; writes status.json beside it. On Slurm `tasks` picks some.

    A run that was being submitted when it was killed has jobs and no submission.json: those are stopped too. Raises BadInput for a task
    that the run does not have, Unreachable when the cluster could not be asked, StepFailed when something would not stop.
    """
    run = submission_path.parent
    if not submission_path.exists():
        if jobs := jobs_of(run):
            _say(process_jobs.cancel(jobs))
            return
        if cancel_unrecorded(run):
            return
    submission = show.submission_of(str(submission_path))
    chosen = show.chosen_jobs(submission, tasks or [])
    if submission["executor"] == "slurm":
        cancel_on_cluster(submission, chosen)
    elif tasks:
        raise BadInput(f"TASKS: the tasks of a run on executor {submission['executor']} are stopped together; leave TASKS out")
    elif submission["executor"] == "process":
        _say(process_jobs.cancel(Path(submission["jobs"][0]["job_dir"]).parent))
    else:
        from helpers.launcher import api

        _say(api.kill(submission["invocation_id"]))
    seen = status.ask(submission)
    files.write_json(submission_path.with_name("status.json"), seen, "status")
    indices = {job["index"] for job in chosen}
    if submission["executor"] == "slurm":
        return  # squeue has confirmed it; a job may be COMPLETING for half a minute yet
    if still := [job["task"] for job in seen["jobs"] if job["index"] in indices and job["state"] not in status.ENDED]:
        raise StepFailed(f"{', '.join(still)}: some job is still there; `make status RUN={run.name}` shows which")


def cancel_on_cluster(submission: dict[str, Any], chosen: list[dict[str, Any]]) -> None:
    """Cancel the whole chain of each of these jobs, and say which Slurm jobs were cancelled."""
    from helpers.executors.slurm import executor as slurm

    for line in slurm.EXECUTOR.cancel(submission, chosen) or ["nothing was running"]:
        console.done(line)


def cancel_unrecorded(run: Path) -> bool:
    """Cancel what a submission to Slurm queued that never came to its record; whether the run could have such jobs.

    The run is as before it was submitted then: `make eval RUN=…` submits it.
    """
    from helpers.executors.base import Handover
    from helpers.executors.slurm import executor as slurm

    try:
        data, seal, _ = files.read_yaml(run / "launcher.yaml", "launcher")
        config, _, _ = files.read_yaml(run / "config.yaml", "config")
    except BadInput:
        return False
    if data["execution"]["type"] != "slurm":
        return False
    for line in slurm.EXECUTOR.cancel_unrecorded(Handover(config, data, seal, run)) or [f"{run.name} was not submitted: it has no jobs"]:
        console.done(line)
    return True


def jobs_of(run: Path) -> Path | None:
    """The folder with the jobs of a run on this machine: the one that its launcher.yaml names. None when there are no jobs."""
    try:
        execution = files.read_yaml(run / "launcher.yaml", "launcher")[0]["execution"]
    except BadInput:
        return None
    jobs = Path(execution.get("output_dir") or run / "jobs")
    return jobs if execution["type"] == "process" and (jobs / process_jobs.PLAN).exists() else None


@contextmanager
def leaving_nothing(run: Path | None) -> Iterator[None]:
    """Whatever was started for the run is stopped when the block is interrupted (Ctrl-C, SIGTERM, SIGHUP); its tasks stay open."""
    follow.listen_for_signals()
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        follow.ignore_signals()
        if run and (jobs := jobs_of(run)):
            process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        if run and is_for_slurm(run):
            raise Interrupted(
                f"interrupted: jobs that Slurm has queued by now go on; `make eval RUN={run.name}` finds them and submits the others, "
                f"`make cancel RUN={run.name}` cancels them"
            ) from error
        raise


def is_for_slurm(run: Path) -> bool:
    """Whether what the run submits goes to Slurm, by its launcher.yaml."""
    try:
        return bool(files.read_yaml(run / "launcher.yaml", "launcher")[0]["execution"]["type"] == "slurm")
    except BadInput:
        return False


def _say(stopped: int) -> None:
    console.done(f"{stopped} processes stopped; nothing is left running" if stopped else "nothing was running")
