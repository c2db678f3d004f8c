"""All tasks: those of the launcher's catalogue, which run in containers, and those of harness packages installed here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common import yaml_files
from helpers.common.errors import BadInput, StepFailed, nearest
from helpers.common.files import ROOT, sha256_bytes, write_text

# The starter benchmarks; processes have this folder on their PYTHONPATH too (helpers/executors/process/executor.py).
STARTER = ROOT / "helpers" / "harness"
# The launcher's catalogue as it was last read, in 2 ms instead of 90. It lies with the packages, so it goes when they are replaced.
CACHE = Path(sys.prefix) / "cache" / "tasks.json"


@dataclass(frozen=True)
class Task:
    """A task, its harness and the endpoint types it supports. `container` is None for a harness that is only installed here."""

    harness: str
    name: str
    endpoint_types: tuple[str, ...]
    container: str | None
    installed: bool
    description: str

    @property
    def full_name(self) -> str:
        """`harness.task`, which is unique."""
        return f"{self.harness}.{self.name}"


@cache
def load() -> dict[tuple[str, str], Task]:
    """All tasks by (harness, name). A task that is in the catalogue and installed too keeps the catalogue's container.

    Reads the launcher's resources/all_tasks_irs.yaml (421 tasks; importing the launcher takes 0.9 s).
    """
    tasks = {(task.harness, task.name): task for task in _catalogue()}
    for task in _installed():
        known = tasks.get((task.harness, task.name))
        tasks[task.harness, task.name] = Task(
            task.harness, task.name, task.endpoint_types, known.container if known else None, True, task.description
        )
    return tasks


def find(query: str, others: Iterable[str] = ()) -> Task:
    """The one task that `query` (`task` or `harness.task`) names.

    Raises BadInput with the candidates if several harnesses have it, and with the nearest name if none has: the catalogue's, else the
    nearest of `others`.
    """
    tasks = load()
    harness, dot, name = query.rpartition(".")
    if dot and (harness, name) in tasks:
        return tasks[harness, name]
    found = [task for task in tasks.values() if task.name == query]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{len(found)} harnesses have a task {query}; name one: {', '.join(task.full_name for task in found)}")
    names = [word for task in tasks.values() for word in (task.name, task.full_name)]
    near = nearest(query, names) or nearest(query, others)
    raise BadInput(f"there is no task {query!r}{near}; `make tasks MATCH=…` searches all {len(tasks)} tasks")


def is_known(query: str) -> bool:
    """Whether `query` names at least one task."""
    harness, dot, name = query.rpartition(".")
    return any((dot and key == (harness, name)) or key[1] == query for key in load())


def _catalogue() -> Iterable[Task]:
    spec = importlib.util.find_spec("nemo_evaluator_launcher")
    assert spec is not None
    assert spec.submodule_search_locations
    source = (Path(spec.submodule_search_locations[0]) / "resources" / "all_tasks_irs.yaml").read_bytes()
    made_from = sha256_bytes(source + Path(__file__).read_bytes())
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # not there, torn, or not ours: it is made again
        cached = json.loads(CACHE.read_bytes())
        if cached["made_from"] == made_from:
            return [Task(harness, name, tuple(kinds), *rest) for harness, name, kinds, *rest in cached["tasks"]]
    data = yaml_files.load(source)
    containers = {harness["name"]: harness.get("container") for harness in data["harnesses"]}
    tasks = [
        Task(
            task["harness"],
            task["name"],
            tuple(task["defaults"].get("config", {}).get("supported_endpoint_types", ["chat"])),
            containers.get(task["harness"]),
            False,
            _sentence(task.get("description")),
        )
        for task in data["tasks"]
    ]
    with contextlib.suppress(StepFailed):  # an installation that may not be written
        write_text(CACHE, json.dumps({"made_from": made_from, "tasks": [astuple(task) for task in tasks]}))
    return tasks


def _installed() -> Iterable[Task]:
    """The tasks of the harness packages that nemo-evaluator finds: NAME/framework.yml in the namespace package core_evals."""
    for folder in dict.fromkeys([str(STARTER), *sys.path]):
        for path in sorted(Path(folder or ".").glob("core_evals/*/framework.yml")):
            framework = yaml_files.load(path.read_bytes())
            defaults = framework.get("defaults", {}).get("config", {})
            for evaluation in framework["evaluations"]:
                config = {**defaults, **evaluation["defaults"].get("config", {})}
                yield Task(
                    framework["framework"]["name"],
                    config["type"],
                    tuple(config.get("supported_endpoint_types", ["chat"])),
                    None,
                    True,
                    _sentence(evaluation.get("description")),
                )


def _sentence(description: Any) -> str:
    """The description on one line; some in the catalogue are lists of lines."""
    text = " ".join(description) if isinstance(description, list) else str(description or "")
    return " ".join(text.split())
