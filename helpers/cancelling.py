"""Stopping the jobs of a run, for every executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import console, files, following, process_jobs, show, status
from helpers.errors import BadInput, Interrupted, StepFailed


def cancel(submission_path: Path) -> None:
    """Stop every job of the submission for good and say what was stopped; writes status.json beside it.

    A run that was being submitted when it was killed has jobs and no submission.json: those are stopped too.
    """
    if not submission_path.exists() and (jobs := jobs_of(submission_path.parent)):
        _say(process_jobs.cancel(jobs))
        return
    submission = show.submission_of(str(submission_path))
    if submission["executor"] == "process":
        _say(process_jobs.cancel(Path(submission["jobs"][0]["job_dir"]).parent))
    else:
        from helpers import launcher

        _say(launcher.kill(submission["invocation_id"]))
    seen = status.ask(submission)
    files.write_json(submission_path.with_name("status.json"), seen, "status")
    if not status.is_over(seen):
        raise StepFailed("some job is still there; `make status` shows which")


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
    following.listen_for_signals()
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        following.ignore_signals()
        if run and (jobs := jobs_of(run)):
            process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
        raise


def _say(stopped: int) -> None:
    console.done(f"{stopped} processes stopped; nothing is left running" if stopped else "nothing was running")
