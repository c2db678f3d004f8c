"""What the looking targets print: status, logs, results, origins, runs, tasks, profiles. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from helpers import catalogue, configs, console, files, following, results, run_folder, status
from helpers import profiles as profile_files
from helpers.console import Cell
from helpers.errors import BadInput, TaskFailed, nearest
from helpers.files import shown

STYLES = {"SUCCEEDED": "green", "RUNNING": "cyan", "PENDING": "", "UNKNOWN": "yellow"}


def submission_of(path: str) -> dict[str, Any]:
    """submission.json, or a BadInput that says how to submit when the run was not submitted yet."""
    if path != "-" and not Path(path).exists():
        run = Path(path).parent
        if not run.is_dir():
            raise BadInput("there are no runs yet; `make eval` makes one" if run.name == "none-yet" else f"no such run: {shown(run)}")
        raise BadInput(f"{run.name} was not submitted; `make eval RUN={run.name}` goes on with it")
    return files.read_json(path, "submission")


def status_table(seen: dict[str, Any]) -> None:
    """A row a job, and what to do next."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Invocation {seen['invocation_id']}", title_justify="left")
    for name in ("task", "state", "progress", "reason"):
        table.add_column(name, overflow="fold")
    for job in seen["jobs"]:
        table.add_row(
            Text(job["task"]), Text(job["state"], style=STYLES.get(job["state"], "red")), following.amount(job), Text(job["reason"])
        )
    console.rich_console(sys.stdout).print(table)
    if status.is_over(seen):
        console.say("`make results` shows the scores")
    elif not status.is_lost(seen):
        console.say("`make logs` shows the logs, `make cancel` stops it")


def logs(submission: dict[str, Any], wanted: list[str], which: str) -> None:
    """The log of each task on stdout, each line behind the task's name; BadInput for a task that the run does not have."""
    known = [job["task"] for job in submission["jobs"]]
    for task in wanted:
        if task not in known:
            raise BadInput(f"this run has no task {task}{nearest(task, known)}; it has {', '.join(known)}")
    for job in submission["jobs"]:
        if wanted and job["task"] not in wanted:
            continue
        path = Path(job["job_dir"] or ".") / "logs" / f"{which}_stdout.log"
        if not path.exists():
            console.notice(f"{job['task']} has no {which} log yet")
            continue
        with path.open("rb") as log:
            for line in log:
                print(f"{job['task']} | {following.harmless(line)}")


def gather(submission_path: str, status_path: str | None, out: str, partial: bool) -> None:
    """Write results.json when every task has ended, unless it is there and made from this submission; with `partial` show what there is."""
    submission = submission_of(submission_path)
    seen = files.read_json(status_path, "status") if status_path else status.ask(submission)
    found = results.collect(submission, seen)
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
    failed = [entry["task"] for entry in found["tasks"] if entry["state"] != "SUCCEEDED"]
    if failed:
        run = run_folder.run_of(path)
        raise TaskFailed(
            f"{len(failed)} of {len(found['tasks'])} tasks failed: {', '.join(failed)}; "
            f"`make logs{f' RUN={run.name}' if run else ''}` shows why"
        )


def _print_results(found: dict[str, Any]) -> None:
    console.rich_console(sys.stdout).print(results.table(found))
    for text in results.notices(found):
        console.notice(text)


def origins(path: str, key: str) -> None:
    """Each place that set the key (or each key below it), the last one wins."""
    if path != "-" and not Path(path).exists():
        raise BadInput(f"{shown(path)} is not there; `make eval` or `make dry-run` makes it")
    keys = files.read_json(path, "origins")["keys"]
    wanted = {name: history for name, history in keys.items() if not key or name == key or name.startswith(f"{key}.")}
    if not wanted:
        raise BadInput(f"KEY={key}: the configuration has no such key{nearest(key, keys)}; leave KEY out to see all of them")
    for name, history in wanted.items():
        print(name)
        for number, place in enumerate(history, 1):
            mark = "=" if number == len(history) else " "
            print(f"  {mark} {json.dumps(place['value'], ensure_ascii=False):<32} {place['set_by']}")


def runs(match: str, most: int) -> None:
    """The newest runs that match; reads only those that are shown."""
    ids = [name for name in run_folder.all_ids() if match in name]
    rows: list[list[str | Cell]] = []
    for name in reversed(ids[-most:]):
        request = _peek(run_folder.RUNS / name / "request.json")
        tasks = " ".join(request.get("tasks") or []) or "all"
        rows.append([name, str(request.get("mode", "?")), str(request.get("config", "?")), tasks, _standing(run_folder.RUNS / name)])
    title = f"{len(ids)} runs" + (f" with {match!r} in their id" if match else "")
    console.print_table(title, ["run", "mode", "config", "tasks", "state"], rows)
    if len(ids) > most:
        console.say(f"and {len(ids) - most} older ones; MATCH= searches them")


def tasks(match: str) -> None:
    """The tasks with the text in their name, harness, endpoint type or description."""
    word = match.lower()
    known = sorted(catalogue.load().values(), key=lambda task: (not task.installed, task.harness, task.name))
    found = [task for task in known if word in " ".join([task.full_name, *task.endpoint_types, task.description]).lower()]
    if not found:
        near = nearest(match, [name for task in known for name in (task.name, task.harness)])
        raise BadInput(f"MATCH={match}: no task has this in its name, harness, endpoint type or description{near}")
    rows: list[list[str | Cell]] = [
        [task.name, task.harness, ", ".join(task.endpoint_types), "here" if task.installed else "container", task.description]
        for task in found
    ]
    console.print_table(f"{len(found)} tasks", ["task", "harness", "endpoint", "runs in", "description"], rows, last_is_text=True)


def profiles(env_file: Path | None) -> None:
    """The profiles of env.toml with what they inherit."""
    env = profile_files.load(env_file) if env_file else profile_files.find(configs.CONFIGS)
    if env.path is None:
        console.say("There is no env.toml; `cp env.toml.example env.toml` and fill in your cluster.")
        return
    shown_fields = ["executor", "host", "account", "partition"]
    rows: list[list[str | Cell]] = []
    for name in env.names():
        fields = profile_files.get(env, name).fields
        rows.append([name, *(str(fields.get(key, "")) for key in shown_fields)])
    console.print_table(f"Profiles of {shown(env.path)}", ["profile", *shown_fields], rows)


def _peek(path: Path) -> dict[str, Any]:
    """A file of a run for a listing: whatever can be read of it, without checks."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _standing(folder: Path) -> Cell:
    """How a run stands as last seen: its results, its last status, or the step it came to."""
    entries = _peek(folder / "results.json").get("tasks") or _peek(folder / "status.json").get("jobs")
    if entries:
        states = [str(entry.get("state")) for entry in entries]
        first = next((state for state in states if state != "SUCCEEDED"), "SUCCEEDED")
        return Cell(f"{first} ({states.count('SUCCEEDED')}/{len(states)})", STYLES.get(first, "red"))
    return Cell("submitted" if (folder / "submission.json").exists() else "not submitted")
