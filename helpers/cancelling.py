"""Stopping the jobs of a run, for every executor."""

from __future__ import annotations

from pathlib import Path

from helpers import console, files, process_jobs, show, status
from helpers.errors import StepFailed


def cancel(submission_path: Path) -> None:
    """Stop every job of the submission and say what was stopped; writes status.json beside it.

    A run that was being submitted when it was killed has jobs and no submission.json: those are stopped too.
    """
    jobs = submission_path.parent / "jobs"
    if not submission_path.exists() and process_jobs.read(jobs / process_jobs.PLAN):
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


def _say(stopped: int) -> None:
    console.done(f"{stopped} processes stopped; nothing is left running" if stopped else "nothing was running")
