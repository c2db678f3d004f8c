"""Collecting the scores of a run into results.json, showing them, and the verdict."""

import sys
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder, stopping_points
from helpers.common.errors import BadInput, TaskFailed
from helpers.common.files import shown
from helpers.config import tasks
from helpers.executors import record, registry, scores, states, submissions, validity
from helpers.exports import exports_file
from helpers.steps import status


def gather(submission_path: str, status_path: str | None, out: str, partial: bool) -> None:
    """Write results.json when every task has ended, unless it has the same content; with `partial` show the scores so far.

    `status_path`: status.json of somebody who followed the run; None asks now. Raises BadInput when a task has not ended and `partial` is
    not given, Unreachable.
    """
    submission = submissions.read(submission_path)
    seen = files.read_json(status_path, "status") if status_path else status.ask(submission)
    rows = seen["jobs"]
    registry.get(submission["executor"]).bring_home(submission, rows, not status_path)  # whoever followed has tidied up
    run = Path(submission_path).parent
    model = files.read_json(run / "model.json", "model") if (run / "model.json").exists() else None
    found = scores.collect(submission, seen, record.of_run(run), model)
    stopping_points.here("before-results")
    if states.is_over(rows):
        if out == "-" or not Path(out).exists() or files.read_json(out, "results") != files.seal_json(found):
            files.write_json(out, found, "results")
    elif not partial:
        raise BadInput("some tasks have not ended; `make results` shows the scores so far, `make eval RUN=…` waits for the rest")
    if partial:
        _print(found)
        if not states.is_over(rows):
            console.notice("some tasks have not ended: these are not all the results")


def verdict(path: str) -> None:
    """Show results.json on stdout. Raises TaskFailed when some task has no results."""
    found = files.read_json(path, "results")
    _print(found)
    console.say(f"Results: {shown(path)}")
    exports = Path(path).with_name("exports.json")
    if path != "-" and exports.exists() and (document := files.read_json(exports, "exports"))["results"] == found["seal"]:
        exports_file.announce(document, run_folder.run_of(path))
    labels = tasks.labels(found["tasks"])
    failed = [labels[entry["index"]] for entry in found["tasks"] if entry["state"] != states.SUCCEEDED]
    if failed:
        of_run = f" RUN={run.name}" if (run := run_folder.run_of(path)) else ""
        fix = f"`make logs{of_run}` shows why, `make resume{of_run}` runs them again"
        raise TaskFailed(f"{len(failed)} of {len(found['tasks'])} tasks failed: {', '.join(failed)}; {fix}")


def _print(found: dict[str, Any]) -> None:
    screen = console.rich_console(sys.stdout)
    if line := validity.headline(found["tasks"], tasks.labels(found["tasks"])):
        screen.print(line, markup=False)
    screen.print(scores.table(found))
    for text in scores.notices(found):
        console.notice(text)
    for text in scores.notes(found):
        console.info(text)
