"""The table of runs, newest first."""

import json
from pathlib import Path
from typing import Any

from helpers.common import console, run_folder
from helpers.common.console import Cell
from helpers.executors.display import STYLES


def show(match: str, most: int) -> None:
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
