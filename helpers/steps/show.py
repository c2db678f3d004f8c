"""What the looking targets print: status, logs, results, origins, runs, tasks, profiles. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.common import console, files, run_folder
from helpers.common.console import Cell
from helpers.common.errors import BadInput, nearest
from helpers.common.files import shown
from helpers.config import catalogue, config_files
from helpers.config import profiles as profile_files

# How often a watched status is asked for: local files cost nothing, a cluster's controller should not be asked too often.
WATCH_SECONDS, WATCH_MOST = 2.0, 30.0
STYLES = {"SUCCEEDED": "green", "RUNNING": "cyan", "RESUMING": "cyan", "PENDING": "", "UNKNOWN": "yellow", "UNREACHABLE": "yellow"}


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
    env = profile_files.load(env_file) if env_file else profile_files.find(config_files.CONFIGS)
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
