"""All tasks: those of the launcher's catalogue, which run in containers, and those of harness packages installed here."""

import contextlib
import json
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from helpers.common import yaml_files
from helpers.common.errors import BadInput, StepFailed, nearest
from helpers.common.files import ROOT, sha256_bytes, write_text
from helpers.config.config_files import launcher_configs

# The starter benchmarks; processes have this folder on their PYTHONPATH too (helpers/executors/process/executor.py).
STARTER = ROOT / "helpers" / "harness"
# The launcher's catalogue as it was last read, in 2 ms instead of 90. It is stored with the packages, so it goes when they are replaced.
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
        tasks[task.harness, task.name] = replace(task, container=known.container if known else None)
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
    source = (launcher_configs().parent / "resources" / "all_tasks_irs.yaml").read_bytes()
    made_from = sha256_bytes(source + Path(__file__).read_bytes())
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # missing, damaged or of another version: it is made again
        cached = json.loads(CACHE.read_bytes())
        if cached["made_from"] == made_from:
            return [Task(harness, name, tuple(kinds), *rest) for harness, name, kinds, *rest in cached["tasks"]]
    data = yaml_files.load(source)
    containers = {harness["name"]: harness.get("container") for harness in data["harnesses"]}
    tasks = []
    for task in data["tasks"]:
        config, harness = task["defaults"].get("config", {}), task["harness"]
        tasks.append(_task(harness, task["name"], config, task.get("description"), containers.get(harness), installed=False))
    with contextlib.suppress(StepFailed):  # the installation is read-only
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
                yield _task(framework["framework"]["name"], config["type"], config, evaluation.get("description"), None, installed=True)


def _task(harness: str, name: str, config: dict[str, Any], description: Any, container: str | None, *, installed: bool) -> Task:
    """A task with its description on one line; some in the catalogue are lists of lines."""
    text = " ".join(description) if isinstance(description, list) else str(description or "")
    kinds = tuple(config.get("supported_endpoint_types", ["chat"]))
    return Task(harness, name, kinds, container, installed, " ".join(text.split()))
