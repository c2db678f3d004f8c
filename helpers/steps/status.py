"""Where the jobs of submissions stand: status.json and its table."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from helpers.common import console, files, processes, run_folder
from helpers.common.errors import Unreachable, one_line
from helpers.config import tasks
from helpers.executors import display, registry, states
from helpers.executors.base import Answer

MADE_BY = "status.py"
# How often a watched status is asked for: local files cost nothing, a cluster's controller should not be asked too often.
WATCH_SECONDS, WATCH_MOST = 2.0, 30.0


def ask(submission: dict[str, Any]) -> dict[str, Any]:
    """The content of status.json now, unsealed. Raises Unreachable when the cluster does not answer."""
    (found,), failures = ask_all([submission])
    if failures:
        raise failures[0]
    return found


def ask_all(submissions: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Unreachable]]:
    """The status of each submission, and the error of each cluster that did not answer: its jobs are UNREACHABLE then."""
    documents: dict[int, dict[str, Any]] = {}
    failures: list[Unreachable] = []
    for executor in dict.fromkeys(one["executor"] for one in submissions):
        numbers = [number for number, one in enumerate(submissions) if one["executor"] == executor]
        answers = registry.get(executor).ask([submissions[number] for number in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            documents[number] = document_of(submissions[number], answer)
            if answer.error and answer.error not in failures:
                failures.append(answer.error)
    return [documents[number] for number in range(len(submissions))], failures


def document_of(submission: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The content of status.json for an executor's answer, unsealed."""
    return {
        "made_by": MADE_BY,
        "made_from": {"submission.json": submission["seal"]},
        "asked_at": run_folder.now(),
        "invocation_id": submission["invocation_id"],
        "jobs": answer.rows,
        **({"not_asked": list(answer.problems)} if answer.problems else {}),
    }


def show_all(submissions: list[dict[str, Any]], paths: list[str], outs: list[str], as_json: bool) -> None:
    """Ask once, show each submission, and write its status to `outs` where there are any (`-`: to stdout, instead of a table).

    The jobs of a cluster that does not answer are shown as UNREACHABLE. Their status is not written, and Unreachable is raised at the end.
    """
    found, failures = ask_all(submissions)
    _write(found, outs)
    for seen, path in zip(found, paths, strict=True):
        if as_json:
            print(json.dumps(files.seal_json(seen), ensure_ascii=False))
        elif outs != ["-"]:
            print_table(seen, run_folder.run_of(path))
    if failures:
        raise failures[0]


def watch(submissions: list[dict[str, Any]], paths: list[str], outs: list[str]) -> None:
    """Show the tables until all jobs have ended, in place on a terminal. A cluster that does not answer is asked again."""
    from rich.console import Group
    from rich.live import Live

    processes.end_with_caller()
    seconds = WATCH_SECONDS
    fancy = console.is_fancy(sys.stdout)
    with Live(console=console.rich_console(sys.stdout), auto_refresh=False) if fancy else nullcontext() as live:
        while True:
            found, failures = ask_all(submissions)
            _write(found, outs)
            views = [_table(seen) for seen in found]
            if live:
                live.update(Group(*views, *(f"{one}; asking again" for one in failures)), refresh=True)
            else:
                for view in views:
                    console.rich_console(sys.stdout).print(view)
            if all(states.is_over(seen["jobs"]) or states.is_lost(seen["jobs"]) for seen in found):
                break
            time.sleep(seconds)
            seconds = min(WATCH_MOST, seconds * 1.2)
    for path, seen in zip(paths, found, strict=True):
        run = run_folder.run_of(path)
        console.say(f"`make results{f' RUN={run.name}' if run else ''}` shows the scores" if states.is_over(seen["jobs"]) else "")


def print_table(seen: dict[str, Any], run: Path | None = None) -> None:
    """Print a row for each job, the log and the last errors of failed ones, and what to do next."""
    console.rich_console(sys.stdout).print(_table(seen))
    rows = seen["jobs"]
    for row in rows:
        if states.has_failed(row) and row.get("slurm_job_id") and row["log"]:
            print(f"{tasks.labels(rows)[row['index']]}: {row['log']}")
            for line in row.get("errors", []):
                print(f"  > {one_line(line)}")
    for text in seen.get("not_asked", []):
        console.notice(text)
    of_run = f" RUN={run.name}" if run else ""
    if _is_unreachable(seen):
        return
    if states.is_over(rows):
        again = f", `make resume{of_run}` runs the failed tasks again" if any(map(states.has_failed, rows)) else ""
        console.say(f"`make results{of_run}` shows the scores{again}")
    elif not states.is_lost(rows):
        console.say(f"`make logs{of_run}` shows the logs, `make cancel{of_run}` stops it")


def _write(found: list[dict[str, Any]], outs: list[str]) -> None:
    for seen, out in zip(found, outs, strict=False):
        if not _is_unreachable(seen):
            files.write_json(out, seen, "status")


def _is_unreachable(seen: dict[str, Any]) -> bool:
    return any(row["state"] == states.UNREACHABLE for row in seen["jobs"])


def _table(seen: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    on_cluster = any("chain" in row for row in seen["jobs"])
    table = Table(title=f"Invocation {seen['invocation_id']}", title_justify="left")
    for name in ("task", *(("job",) if on_cluster else ()), "state", "progress", "reason"):
        table.add_column(name, overflow="fold")
    labels = tasks.labels(seen["jobs"])
    for row in seen["jobs"]:
        cells = [Text(labels[row["index"]])]
        if on_cluster:
            more = len(row.get("chain", [])) - 1
            cells.append(Text(f"{row.get('slurm_job_id') or '-'}{f' (+{more})' if more > 0 else ''}"))
        reason = row["reason"]
        if row.get("expected_start"):
            reason += f"; expected start {row['expected_start']}"
        table.add_row(*cells, Text(row["state"], style=display.STYLES.get(row["state"], "red")), Text(display.amount(row)), Text(reason))
    return table
