"""The table of runs, newest first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.common import console, run_folder
from helpers.common.console import Cell
from helpers.steps.show import STYLES


def show(match: str, most: int) -> None:
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
