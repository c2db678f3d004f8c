"""The tables of what one can choose from: runs, tasks, profiles."""

import json
from pathlib import Path
from typing import Any

from helpers.common import console, run_folder
from helpers.common.console import Cell
from helpers.common.errors import BadInput, nearest
from helpers.common.files import shown
from helpers.config import catalogue, config_files, profiles
from helpers.executors.display import STYLES


def show_runs(match: str, most: int) -> None:
    """Print the newest runs whose id contains `match`, `most` of them at most. Reads only those that it prints."""
    ids = [name for name in run_folder.all_ids() if match in name]
    rows: list[list[str | Cell]] = []
    for name in reversed(ids[-most:]):
        request = _peek(run_folder.RUNS / name / "request.json")
        tasks = " ".join(request.get("tasks") or []) or "all"
        rows.append([name, str(request.get("mode", "?")), str(request.get("config", "?")), tasks, _state(run_folder.RUNS / name)])
    title = console.counted(len(ids), "run") + (f" with {match!r} in their id" if match else "")
    console.print_table(title, ["run", "mode", "config", "tasks", "state"], rows)
    if len(ids) > most:
        console.say(f"and {len(ids) - most} older ones; MATCH= searches them")


def _peek(path: Path) -> dict[str, Any]:
    """A JSON file of a run without any checks; empty when it cannot be read."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _state(folder: Path) -> Cell:
    """The last known state of a run: from its results, otherwise from its last status, otherwise whether it was submitted."""
    entries = _peek(folder / "results.json").get("tasks") or _peek(folder / "status.json").get("jobs")
    if entries:
        states = [str(entry.get("state")) for entry in entries]
        first = next((state for state in states if state != "SUCCEEDED"), "SUCCEEDED")
        return Cell(f"{first} ({states.count('SUCCEEDED')}/{len(states)})", STYLES.get(first, "red"))
    return Cell("submitted" if (folder / "submission.json").exists() else "not submitted")


def show_tasks(match: str) -> None:
    """Print the tasks with `match` in name, harness, endpoint type or description. Raises BadInput when there are none."""
    word = match.lower()
    known = sorted(catalogue.load().values(), key=lambda task: (not task.installed, task.harness, task.name))
    found = [task for task in known if word in " ".join([task.full_name, *task.endpoint_types, task.description]).lower()]
    if not found:
        near = nearest(match, [name for task in known for name in (task.name, task.harness)])
        raise BadInput(f"MATCH={match}: no task has this text in its name, harness, endpoint type or description{near}")
    rows: list[list[str | Cell]] = [
        [task.name, task.harness, ", ".join(task.endpoint_types), "here" if task.installed else "container", task.description]
        for task in found
    ]
    title = console.counted(len(found), "task")
    console.print_table(title, ["task", "harness", "endpoint", "runs in", "description"], rows, last_is_text=True)


def show_profiles(env_file: Path | None) -> None:
    """Print the profiles of env.toml, with the fields that they inherit. Raises BadInput when it cannot be read."""
    env = profiles.load(env_file) if env_file else profiles.find(config_files.CONFIGS)
    if env.path is None:
        console.say("There is no env.toml; run `cp env.toml.example env.toml` and fill in your cluster.")
        return
    shown_fields = ["executor", "host", "account", "partition"]
    rows: list[list[str | Cell]] = []
    for name in env.names():
        fields = profiles.get(env, name).fields
        rows.append([name, *(str(fields.get(key, "")) for key in shown_fields)])
    console.print_table(f"Profiles of {shown(env.path)}", ["profile", *shown_fields], rows)
