"""All tasks: those of the launcher's catalogue, which run in containers, and those of harness packages installed here."""

import contextlib
import json
import re
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
# The data sets whose owners let in only people who asked for access, each with the word in the names of the tasks that load it.
GATED = {"gpqa": "Idavidrein/gpqa", "hle": "cais/hle", "wildguard": "allenai/wildguardmix"}
PUBLIC, UNKNOWN, NONE = "public", "unknown", "none"
# Every task of this harness loads its data set from the hub (facts of lm-eval: `dataset_path` of each task).
FROM_THE_HUB = ("lm-evaluation-harness",)


@dataclass(frozen=True)
class Task:
    """A task, its harness and the endpoint types it supports. `container` is None for a harness that is only installed here."""

    harness: str
    name: str
    endpoint_types: tuple[str, ...]
    container: str | None
    installed: bool
    description: str
    logprobs: bool = False  # it scores log-likelihoods: the harness splits the text with the model's own tokenizer
    tokenizer: str = ""  # the key below params.extra that names a tokenizer, which the harness cannot do without
    hub: str = UNKNOWN  # its data set on the Hugging Face hub: PUBLIC, or the name of a gated one; UNKNOWN: nobody has looked

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
        known = tasks.get((task.harness, task.name), task)
        tasks[task.harness, task.name] = replace(task, container=known.container, hub=known.hub)
    return tasks


def find(query: str, others: Iterable[str] = ()) -> Task:
    """The one task that `query` (`task` or `harness.task`) names.

    Raises BadInput with the candidates if several harnesses have it, and with the nearest name if none has: the catalogue's, else the
    nearest of `others`.
    """
    tasks, found = load(), candidates(query)
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous([query])
    names = [word for task in tasks.values() for word in (task.name, task.full_name)]
    near = nearest(query, names) or nearest(query, others)
    newer = "" if near else "; if a newer container has it, name that container in the config (`container:` below the task's name)"
    raise BadInput(f"there is no task {query!r}{near}; `make tasks MATCH=…` searches all {len(tasks)} tasks{newer}")


def candidates(query: str) -> list[Task]:
    """The tasks that `query` (`task` or `harness.task`) may name."""
    harness, dot, name = query.rpartition(".")
    if dot and (harness, name) in load():
        return [load()[harness, name]]
    return [task for task in load().values() if task.name == query]


def ambiguous(queries: Iterable[str]) -> BadInput:
    """The error for names that several harnesses have, with the candidates of each."""
    found = {query: [task.full_name for task in candidates(query)] for query in queries}
    if len(found) == 1:
        ((query, names),) = found.items()
        return BadInput(f"{len(names)} harnesses have a task {query}; name one: {', '.join(names)}")
    listed = "; ".join(f"{query} ({' or '.join(names)})" for query, names in found.items())
    return BadInput(f"several harnesses have these tasks; name one of each: {listed}")


def is_known(query: str) -> bool:
    """Whether `query` names at least one task."""
    return bool(candidates(query))


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
        harness, name = task["harness"], task["name"]
        found = _task(harness, name, task["defaults"], task.get("description"))
        tasks.append(replace(found, container=containers.get(harness), hub=_hub(harness, name)))
    with contextlib.suppress(StepFailed):  # the installation is read-only
        write_text(CACHE, json.dumps({"made_from": made_from, "tasks": [astuple(task) for task in tasks]}))
    return tasks


def _installed() -> Iterable[Task]:
    """The tasks of the harness packages that nemo-evaluator finds: NAME/framework.yml in the namespace package core_evals."""
    for folder in dict.fromkeys([str(STARTER), *sys.path]):
        for path in sorted(Path(folder or ".").glob("core_evals/*/framework.yml")):
            framework = yaml_files.load(path.read_bytes())
            common = framework.get("defaults", {})
            for evaluation in framework["evaluations"]:
                defaults = _merged(common, evaluation["defaults"])
                name, description = defaults["config"]["type"], evaluation.get("description")
                yield replace(_task(framework["framework"]["name"], name, defaults, description), installed=True, hub=NONE)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both mappings and all that are in them, as nemo-evaluator merges a framework's defaults with those of a task."""
    inside = {
        key: _merged(value, above[key]) for key, value in below.items() if isinstance(value, dict) and isinstance(above.get(key), dict)
    }
    return {**below, **above, **inside}


def _task(harness: str, name: str, defaults: dict[str, Any], description: Any) -> Task:
    """A task by its defaults, with its description on one line; some in the catalogue are lists of lines."""
    config = defaults.get("config", {})
    text = " ".join(description) if isinstance(description, list) else str(description or "")
    kinds = tuple(config.get("supported_endpoint_types", ["chat"]))
    logprobs = "logprobs" in (config.get("required_capabilities") or [])
    key = _tokenizer_key(config, defaults.get("command", ""), logprobs)
    return Task(harness, name, kinds, None, installed=False, description=" ".join(text.split()), logprobs=logprobs, tokenizer=key)


def _tokenizer_key(config: dict[str, Any], command: str, logprobs: bool) -> str:
    """The key below params.extra that has to name a tokenizer; empty for a task that needs none, or has one.

    These are the tasks that score log-likelihoods, and those whose command names the tokenizer whether there is one or not: ruler,
    genai_perf and nemo_skills' ruler (`--tokenizer_path None`).
    """
    params = config.get("params") or {}
    extra = params.get("extra") or {}
    if logprobs:
        return "tokenizer"
    if "tokenizer" in extra and extra["tokenizer"] is None and "extra.tokenizer is not none" not in command:
        return "tokenizer"
    return "ruler.tokenizer_path" if str(params.get("task")).startswith("ruler.") else ""


def _hub(harness: str, name: str) -> str:
    gated = next((data_set for word, data_set in GATED.items() if word in re.split(r"[_-]", name.lower())), None)
    return gated or (PUBLIC if harness in FROM_THE_HUB else UNKNOWN)
