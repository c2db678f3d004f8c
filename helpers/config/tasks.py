"""The tasks of a run: which tasks of the config and of the catalogue are chosen, and whether the endpoint serves them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import BadInput, located
from helpers.config import catalogue
from helpers.config.catalogue import Task

# The launcher asks for consent to run a task that it does not know, unless its container is a file, which somebody put there.
TRUST = "NEMO_EVALUATOR_TRUST_UNLISTED_TASKS"


@dataclass(frozen=True)
class Chosen:
    """The tasks of a run: their entries, the entries' indices in the config (None: added), their definitions, and notices for people."""

    entries: list[dict[str, Any]]
    indices: list[int | None]
    definitions: list[Task]
    notices: list[str]


def choose(entries: list[dict[str, Any]], queries: list[str], where: str, place: Callable[[int], str]) -> Chosen:
    """Filter the config's task entries (`evaluation.tasks`) by TASKS; without queries, choose all of them.

    A query is `task` (every entry of that task), `harness.task`, or `task.N` (entry N of the config). A task that the config lacks but the
    catalogue has is added. Entries keep the config's order. `where` names the config in messages; `place` gives file and line of an entry.
    Raises BadInput for an unknown or ambiguous query, and if there is no task at all.
    """
    if not queries:
        if not entries:
            raise BadInput(f'{where}: evaluation.tasks is empty; name tasks there, or give TASKS="…" (`make tasks` lists them)')
        return Chosen(entries, [*range(len(entries))], _defined(entries, range(len(entries)), place), [])
    wanted: set[int] = set()
    added: dict[str, str] = {}
    notices = []
    if unclear := [query for query in queries if not _matches(entries, query) and len(catalogue.candidates(query)) > 1]:
        with located("TASKS"):
            raise catalogue.ambiguous(unclear)
    for query in queries:
        if matches := _matches(entries, query):
            wanted |= matches
            continue
        found = _find(query, [str(entry["name"]) for entry in entries])
        if found.full_name not in added:
            added[found.full_name] = query
            notices.append(f"task {query} is not in {where}: added from the catalogue ({found.full_name})")
    indices = sorted(wanted)
    chosen = [*(entries[i] for i in indices), *({"name": query} for query in added.values())]
    definitions = [*_defined(entries, indices, place), *(catalogue.find(query) for query in added.values())]
    return Chosen(chosen, [*indices, *([None] * len(added))], definitions, notices)


def _matches(entries: list[dict[str, Any]], query: str) -> set[int]:
    """The indices of the entries that a query names. Raises BadInput if they are tasks of several harnesses."""
    found: dict[int, str] = {}
    for index, entry in enumerate(entries):
        words = (str(entry["name"]), _full_name(entry), str(entry["name"]).rpartition(".")[2])
        if query in (*words, *(f"{word}.{index}" for word in words)):
            found[index] = words[1]
    exact = {index for index in found if query.endswith(f".{index}") or query == found[index]}
    kinds = dict.fromkeys(found.values())
    if len(kinds) > 1 and not exact:
        raise BadInput(f"TASKS: {len(kinds)} harnesses in the config have a task {query}; name one: {', '.join(kinds)}")
    return exact or set(found)


def _full_name(entry: dict[str, Any]) -> str:
    """`harness.task` of an entry; just its name if the catalogue has no such task, or several."""
    try:
        return define(entry).full_name
    except BadInput:
        return str(entry["name"])


def _find(query: str, names: list[str]) -> Task:
    """The task of the catalogue that TASKS names; `names` are those of the config, for messages."""
    base, _, last = query.rpartition(".")
    if last.isdecimal() and base in names:
        listed = ", ".join(f"{name}.{index}" for index, name in enumerate(names) if name == base)
        raise BadInput(f"TASKS: the config has no task {query}; it has {listed}")
    with located("TASKS"):
        return catalogue.find(query, others=names)


def _defined(entries: list[dict[str, Any]], indices: Iterable[int], place: Callable[[int], str]) -> list[Task]:
    """The definitions of these entries. Raises BadInput for the first unknown name, and for all ambiguous ones at once."""
    found, ambiguous = [], []
    for index in indices:
        if len(catalogue.candidates(str(entries[index].get("name", "")))) > 1:
            ambiguous.append(index)
            continue
        with located(place(index)):
            found.append(define(entries[index]))
    if ambiguous:
        with located(place(ambiguous[0])):
            raise catalogue.ambiguous([str(entries[index]["name"]) for index in ambiguous])
    return found


def define(entry: dict[str, Any]) -> Task:
    """The definition of a task entry. An entry with a `container` need not be in the catalogue. Raises BadInput as catalogue.find does."""
    name = str(entry.get("name", ""))
    if entry.get("container") and not catalogue.is_known(name):
        harness, _, task = name.rpartition(".")
        kind = entry.get("endpoint_type") or "chat"
        return Task(harness or "unlisted", task, (kind,), entry["container"], False, "")
    return catalogue.find(name)


def endpoint_type(entry: dict[str, Any], task: Task) -> str:
    """The endpoint type that a task uses: the entry's `endpoint_type`, else the first that the task supports (as the launcher does)."""
    return str(entry.get("endpoint_type") or task.endpoint_types[0])


def served(config: dict[str, Any]) -> set[str] | None:
    """The endpoint types that the model is served with; None if they are not known.

    They are the `endpoints` of a deployment. A hosted endpoint has a `type`, or a URL whose end says it.
    """
    deployment = config["deployment"]
    if deployment["type"] != "none":
        return {name for name in deployment.get("endpoints") or {} if name != "health"} or None
    endpoint = (config.get("target") or {}).get("api_endpoint") or {}
    path = str(endpoint.get("url") or "").split("?")[0].rstrip("/")
    endings = {"/chat/completions": "chat", "/completions": "completions", "/embeddings": "embedding"}
    kind = endpoint.get("type") or next((kind for ending, kind in endings.items() if path.endswith(ending)), None)
    if kind == "chat":
        return {"chat", "vlm"}  # a chat endpoint takes images on the same path, and only the model knows whether it can
    return {kind} if kind else None


def _has_own_url(holder: dict[str, Any]) -> bool:
    """Whether a task, or `evaluation` for all of them, has the URL of another endpoint."""
    inner = (holder.get("nemo_evaluator_config") or {}).get("target") or {}
    return bool((inner.get("api_endpoint") or {}).get("url"))


def check(config: dict[str, Any], definitions: list[Task], place: Callable[[str], str], instead: Sequence[str]) -> None:
    """Raise BadInput for a task that cannot run: the endpoint does not serve what it needs, or its harness is not installed here.

    `place` gives file and line of a dotted key. `instead` are the executors that run containers, if the config's executor does not.
    """
    everywhere = served(config)
    for index, (entry, task) in enumerate(zip(config["evaluation"]["tasks"], definitions, strict=True)):
        kind = endpoint_type(entry, task)
        where = place(f"evaluation.tasks.{index}.name")
        kinds = None if _has_own_url(config["evaluation"]) or _has_own_url(entry) else everywhere
        if kinds is not None and kind not in kinds:
            reason = "log-likelihoods or raw text from a completions endpoint" if kind == "completions" else f"a {kind} endpoint"
            fix = f"choose another task (`make tasks MATCH={min(kinds)}`), or a deployment that serves {kind}"
            raise BadInput(f"{where}: task {entry['name']} needs {reason}, and this endpoint serves only {', '.join(sorted(kinds))}; {fix}")
        is_unlisted = not instead and not catalogue.is_known(str(entry["name"]))
        if is_unlisted and not str(task.container).startswith("/") and os.environ.get(TRUST) != "1":
            why = f"the catalogue has no such task, so the launcher runs it from {task.container} only if you trust it"
            raise BadInput(f"{where}: task {entry['name']}: {why}; `export {TRUST}=1`, or choose a task of `make tasks`")
        if instead and not task.installed:
            extra = ", or install it with `make .venv/installed/lm-eval`" if task.harness == "lm-evaluation-harness" else ""
            why = f"its harness {task.harness} comes as a container and is not installed on this machine"
            fix = f"choose a PROFILE with an executor that runs containers ({', '.join(instead)}){extra}"
            raise BadInput(f"{where}: task {entry['name']}: {why}; {fix}")


def labels(jobs: list[dict[str, Any]]) -> dict[int, str]:
    """The label of each job of a run, by its index: the task's name, or `task.N` if the run has that task several times."""
    names = [job["task"] for job in jobs]
    return {job["index"]: job["task"] if names.count(job["task"]) == 1 else f"{job['task']}.{job['index']}" for job in jobs}
