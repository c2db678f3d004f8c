"""The table of tasks for TASKS."""

from helpers.common import console
from helpers.common.console import Cell
from helpers.common.errors import BadInput, nearest
from helpers.config import catalogue


def show(match: str) -> None:
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
    console.print_table(
        console.counted(len(found), "task"), ["task", "harness", "endpoint", "runs in", "description"], rows, last_is_text=True
    )
