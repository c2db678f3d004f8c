"""Staying with a submission until its jobs have ended, and what Ctrl-C does."""

import os
from pathlib import Path
from typing import Any

from helpers.common import console, files, processes
from helpers.common.errors import Interrupted, StepFailed, interruptible, one_line
from helpers.config import tasks
from helpers.credentials import gathering
from helpers.executors import registry, states
from helpers.executors.base import Answer
from helpers.steps import request, status


def follow(submission: dict[str, Any], submission_path: str, out: str, with_logs: bool | None) -> None:
    """Show progress until every job has ended, and write the last status to `out`; jobs that were interrupted before are resumed first.

    `with_logs`: None leaves it to the executor. Raises Interrupted on Ctrl-C, SIGTERM and SIGHUP, which stop jobs of this machine and leave
    others running; StepFailed when the process that ran the jobs was killed; Unreachable.
    """
    executor = registry.get(submission["executor"])
    run = "…" if submission_path == "-" else Path(submission_path).resolve().parent.name

    def record(answer: Answer) -> None:
        if out != "-":
            files.write_json(out, status.document_of(submission, answer), "status")

    try:
        interruptible()
        processes.end_with_caller()
        if executor.resumes_here(submission):
            _apply_credentials(Path(submission_path).with_name("config.yaml"), executor.reads_local_files)
        answer = executor.follow(submission, executor.streams_logs if with_logs is None else with_logs, record)
    except (KeyboardInterrupt, Interrupted, BrokenPipeError) as error:
        shown = f"`make results RUN={run}` shows the finished tasks, `make eval RUN={run}` resumes the others"
        text = f"stopped, nothing is left running; {shown}"
        if executor.jobs_outlive_us:
            text = f"detached: the jobs continue; `make eval RUN={run}` follows them again, `make cancel RUN={run}` stops them"
        raise Interrupted(text) from error
    _say_what_failed(answer.rows)
    files.write_json(out, status.document_of(submission, answer), "status")
    if states.is_lost(answer.rows):
        raise StepFailed(f"the process that ran the tasks was killed; `make eval RUN={run}` resumes them")


def _apply_credentials(config: Path, reads_local_files: bool) -> None:
    """Put the credentials that a run was submitted with into the environment again."""
    if config.exists():
        compiled = files.read_yaml(config, "config")[0]
        found = gathering.gather(compiled, request.env_folder(str(config)), os.environ, reads_local_files=reads_local_files)
        found.require()
        found.apply(os.environ)


def _say_what_failed(rows: list[dict[str, Any]]) -> None:
    labels = tasks.labels(rows)
    for row in rows:
        if row["state"] != states.SUCCEEDED:
            console.say(one_line(f"✗ {labels[row['index']]} {row['state']}: {row['reason']}"))
            for line in row.get("errors", []):
                console.say(f"  > {one_line(line)}")
            if row["log"]:
                console.say(f"  log: {files.shown(row['log'])}")
