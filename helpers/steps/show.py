"""What the looking targets print: status, logs, results. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder, stopping_points
from helpers.common.errors import BadInput, TaskFailed, nearest, one_line
from helpers.common.files import shown
from helpers.config import tasks as task_rules
from helpers.executors import scores
from helpers.steps import follow, status

# How often a watched status is asked for: local files cost nothing, a cluster's controller should not be asked too often.
WATCH_SECONDS, WATCH_MOST = 2.0, 30.0
STYLES = {"SUCCEEDED": "green", "RUNNING": "cyan", "RESUMING": "cyan", "PENDING": "", "UNKNOWN": "yellow", "UNREACHABLE": "yellow"}


def submission_of(path: str) -> dict[str, Any]:
    """submission.json, or a BadInput that says how to submit when the run was not submitted yet."""
    if path != "-" and not Path(path).exists():
        run = Path(path).parent
        if not run.is_dir():
            raise BadInput("there are no runs yet; `make eval` makes one" if run.name == "none-yet" else f"no such run: {shown(run)}")
        raise BadInput(f"{run.name} was not submitted; `make eval RUN={run.name}` goes on with it")
    return files.read_json(path, "submission")


def chosen_jobs(submission: dict[str, Any], wanted: list[str]) -> list[dict[str, Any]]:
    """The jobs of the tasks named; nothing named means all. Raises BadInput for a task that the run does not have."""
    labels = task_rules.labels(submission["jobs"])
    known = list(dict.fromkeys([*labels.values(), *(job["task"] for job in submission["jobs"])]))
    for task in wanted:
        if task not in known:
            raise BadInput(f"TASKS: this run has no task {task}{nearest(task, known)}; it has {', '.join(known)}")
    return [job for job in submission["jobs"] if not wanted or {job["task"], labels[job["index"]]} & set(wanted)]


def status_table(seen: dict[str, Any], run: Path | None = None) -> None:
    """A row a job, the last lines of trouble of those that failed, what could not be asked, and what to do next."""
    screen = console.rich_console(sys.stdout)
    screen.print(status_view(seen))
    for job in seen["jobs"]:
        if job["state"] in status.ENDED and job["state"] != "SUCCEEDED" and job.get("slurm_job_id") and job["log"]:
            print(f"{task_rules.labels(seen['jobs'])[job['index']]}: {job['log']}")
            for line in job.get("errors", []):
                print(f"  > {one_line(line)}")
    for text in seen.get("not_asked", []):
        console.notice(text)
    of_run = f" RUN={run.name}" if run else ""
    if any(job["state"] == "UNREACHABLE" for job in seen["jobs"]):
        return
    if status.is_over(seen):
        console.say(
            f"`make results{of_run}` shows the scores" + (f", `make resume{of_run}` runs what failed again" if failed(seen) else "")
        )
    elif not status.is_lost(seen):
        console.say(f"`make logs{of_run}` shows the logs, `make cancel{of_run}` stops it")


def statuses(submissions: list[dict[str, Any]], paths: list[str], outs: list[str], as_json: bool) -> None:
    """Ask where each submission stands, show it, and write it to `outs` where there are any (`-`: stdout, instead of the table).

    A cluster that could not be asked: its jobs are shown as UNREACHABLE, nothing is written of them, and Unreachable is raised in the end.
    """
    found, failures = status.ask_all(submissions)
    for number, (seen, path) in enumerate(zip(found, paths, strict=True)):
        reached = all(job["state"] != "UNREACHABLE" for job in seen["jobs"])
        if number < len(outs) and reached:
            files.write_json(outs[number], seen, "status")
        if as_json:
            print(json.dumps(files.seal_json(seen), ensure_ascii=False))
        elif outs != ["-"]:
            status_table(seen, run_folder.run_of(path))
    if failures:
        raise failures[0]


def watch(submissions: list[dict[str, Any]], paths: list[str], outs: list[str]) -> None:
    """The tables again and again, in place on a terminal, until all jobs have ended. A cluster that cannot be asked is asked again."""
    from rich.console import Group
    from rich.live import Live

    seconds = WATCH_SECONDS
    fancy = console.is_fancy(sys.stdout)
    with Live(console=console.rich_console(sys.stdout), auto_refresh=False) if fancy else nullcontext() as live:
        while True:
            found, failures = status.ask_all(submissions)
            for number, seen in enumerate(found):
                if number < len(outs) and all(job["state"] != "UNREACHABLE" for job in seen["jobs"]):
                    files.write_json(outs[number], seen, "status")
            views = [status_view(seen) for seen in found]
            if live:
                live.update(Group(*views, *(f"{one}; asking again" for one in failures)), refresh=True)
            else:
                for view in views:
                    console.rich_console(sys.stdout).print(view)
            if all(status.is_over(seen) or status.is_lost(seen) for seen in found):
                break
            time.sleep(seconds)
            seconds = min(WATCH_MOST, seconds * 1.2)
    for path, seen in zip(paths, found, strict=True):
        run = run_folder.run_of(path)
        console.say(f"`make results{f' RUN={run.name}' if run else ''}` shows the scores" if status.is_over(seen) else "")


def failed(seen: dict[str, Any]) -> bool:
    """Whether some job ended without success."""
    return any(job["state"] in status.ENDED and job["state"] != "SUCCEEDED" for job in seen["jobs"])


def status_view(seen: dict[str, Any]) -> Any:
    """The rows of a status as a rich table."""
    from rich.table import Table
    from rich.text import Text

    on_cluster = any("chain" in job for job in seen["jobs"])
    table = Table(title=f"Invocation {seen['invocation_id']}", title_justify="left")
    for name in ("task", *(("job",) if on_cluster else ()), "state", "progress", "reason"):
        table.add_column(name, overflow="fold")
    labels = task_rules.labels(seen["jobs"])
    for job in seen["jobs"]:
        cells = [Text(labels[job["index"]])]
        if on_cluster:
            more = len(job.get("chain", [])) - 1
            cells.append(Text(f"{job.get('slurm_job_id') or '-'}{f' (+{more})' if more > 0 else ''}"))
        reason = job["reason"]
        if job.get("expected_start"):
            reason += f"; expected start {job['expected_start']}"
        table.add_row(*cells, Text(job["state"], style=STYLES.get(job["state"], "red")), Text(follow.amount(job)), Text(reason))
    return table


def logs(submission: dict[str, Any], wanted: list[str], which: str, to_the_end: bool) -> None:
    """The log of each task on stdout, each line behind the task's name; with `to_the_end` as they grow, until the tasks have ended.

    Raises BadInput for a task that the run does not have, or a log that its executor does not have; Unreachable.
    """
    jobs = chosen_jobs(submission, wanted)
    if submission["executor"] == "slurm":
        from helpers.executors.slurm import following as slurm_following

        slurm_following.show_logs(submission, jobs, which, to_the_end)
        return
    if which == "slurm":
        raise BadInput(f"WHICH=slurm: a run on executor {submission['executor']} has no such log; client and server are there")
    tails = [follow.Tail(job, which, print) for job in jobs]
    while True:
        seen = status.ask(submission) if to_the_end else None
        for tail in tails:
            tail.show()
        if seen is None or status.is_over(seen) or status.is_lost(seen):
            break
        time.sleep(follow.ASK_SECONDS)
    for tail in tails:
        tail.finish()
        if not tail.has_file():
            console.notice(f"{tail.task} has no {which} log yet")


def gather(submission_path: str, status_path: str | None, out: str, partial: bool) -> None:
    """Write results.json when every task has ended, unless it is there and made from this submission; with `partial` show what there is."""
    submission = submission_of(submission_path)
    seen = files.read_json(status_path, "status") if status_path else status.ask(submission)
    if submission["executor"] == "slurm":
        from helpers.executors.slurm import jobs as slurm_jobs

        slurm_jobs.fetch(submission, [job for job in seen["jobs"] if job["state"] in status.ENDED])
        if not status_path:  # whoever followed has tidied
            slurm_jobs.tidy(submission, seen["jobs"])
    model = Path(submission_path).with_name("model.json")
    found = scores.collect(submission, seen, files.read_json(model, "model") if model.exists() else None)
    stopping_points.here("before-results")
    if status.is_over(seen):
        if out == "-" or not Path(out).exists() or files.read_json(out, "results") != files.seal_json(found):
            files.write_json(out, found, "results")
    elif not partial:
        raise BadInput("some task has not ended; `make results` shows what there is, `make eval RUN=…` waits for the rest")
    if partial:
        _print_results(found)
        if not status.is_over(seen):
            console.notice("some tasks have not ended: these are not all the results")


def verdict(path: str) -> None:
    """Show results.json on stdout; raises TaskFailed when some task has no results."""
    found = files.read_json(path, "results")
    _print_results(found)
    console.say(f"Results: {shown(path)}")
    exports = Path(path).with_name("exports.json")
    if path != "-" and exports.exists() and (document := files.read_json(exports, "exports"))["results"] == found["seal"]:
        from helpers.exports import exports_file

        exports_file.announce(document, run_folder.run_of(path))
    labels = task_rules.labels(found["tasks"])
    failed = [labels[entry["index"]] for entry in found["tasks"] if entry["state"] != "SUCCEEDED"]
    if failed:
        of_run = f" RUN={run.name}" if (run := run_folder.run_of(path)) else ""
        raise TaskFailed(
            f"{len(failed)} of {len(found['tasks'])} tasks failed: {', '.join(failed)}; "
            f"`make logs{of_run}` shows why, `make resume{of_run}` runs them again"
        )


def _print_results(found: dict[str, Any]) -> None:
    console.rich_console(sys.stdout).print(scores.table(found))
    for text in scores.notices(found):
        console.notice(text)
