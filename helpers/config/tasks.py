"""Which tasks a run has: those of the config that were asked for, those added from the catalogue; and whether the endpoint serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helpers.common.errors import BadInput, nearest
from helpers.config import catalogue
from helpers.config.catalogue import Task


@dataclass(frozen=True)
class Chosen:
    """The tasks of a run: the entries with their indices in the config (None: added), what each of them is, and what to tell a person."""

    entries: list[dict[str, Any]]
    indices: list[int | None]
    definitions: list[Task]
    notices: list[str]


def choose(entries: list[dict[str, Any]], asked: list[str], where: str, place: Callable[[int], str]) -> Chosen:
    """Filter the config's task entries (`evaluation.tasks`) by the names asked for; nothing asked for means all.

    A name is a task (every entry of that task), `harness.task`, or `task.N` (the Nth entry of the config). A name that the config lacks but
    the catalogue has is added. Entries keep the config's order. `where` names the config in messages, `place` an entry's file and line.
    Raises BadInput for unknown and ambiguous names, and when no task is left.
    """
    if not asked:
        if not entries:
            raise BadInput(f'{where}: evaluation.tasks is empty; name tasks there, or give TASKS="…" (`make tasks` lists them)')
        return Chosen(entries, list(range(len(entries))), [_defined(entry, place(i)) for i, entry in enumerate(entries)], [])
    wanted: set[int] = set()
    added: dict[str, str] = {}
    notices = []
    for query in asked:
        if matches := _matches(entries, query):
            wanted |= matches
            continue
        try:
            found = catalogue.find(query)
        except BadInput as error:
            raise BadInput(f"TASKS: {_with_mend(str(error), query, entries)}") from error
        if found.full_name not in added:
            added[found.full_name] = query
            notices.append(f"task {query} is not in {where}: added from the catalogue ({found.full_name})")
    indices = sorted(wanted)
    chosen = [*(entries[i] for i in indices), *({"name": query} for query in added.values())]
    definitions = [*(_defined(entries[i], place(i)) for i in indices), *(catalogue.find(query) for query in added.values())]
    return Chosen(chosen, [*indices, *([None] * len(added))], definitions, notices)


def _matches(entries: list[dict[str, Any]], query: str) -> set[int]:
    """The indices of the entries that a query names. Raises BadInput when it names tasks of several harnesses."""
    found: dict[int, str] = {}
    for index, entry in enumerate(entries):
        name = str(entry["name"])
        bare = name.rpartition(".")[2]
        full = _full_name(entry)
        if query in (name, full, bare, *(f"{one}.{index}" for one in (name, full, bare))):
            found[index] = full
    exact = {index for index in found if query.endswith(f".{index}") or query == found[index]}
    kinds = dict.fromkeys(found.values())
    if len(kinds) > 1 and not exact:
        raise BadInput(f"TASKS: {query} names tasks of {len(kinds)} harnesses in the config; name one: {', '.join(kinds)}")
    return exact or set(found)


def _full_name(entry: dict[str, Any]) -> str:
    """`harness.task` of an entry; its name as it stands, where that is no task of the catalogue, or one of several."""
    try:
        return define(entry).full_name
    except BadInput:
        return str(entry["name"])


def _with_mend(text: str, query: str, entries: list[dict[str, Any]]) -> str:
    """The message for a task that nobody knows, with the nearest one of the config where the catalogue has none as near."""
    names = [str(entry["name"]) for entry in entries]
    base, _, last = query.rpartition(".")
    if last.isdecimal() and base in names:
        there = ", ".join(f"{name}.{index}" for index, name in enumerate(names) if name == base)
        return f"the config has no task {query}; it has {there}"
    near = nearest(query, names)
    if "(did you mean" in text or not near or "harnesses" in text:
        return text
    return text.replace(";", f"{near};", 1)


def _defined(entry: dict[str, Any], place: str) -> Task:
    try:
        return define(entry)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from error


def define(entry: dict[str, Any]) -> Task:
    """What a task entry is. One with a `container` of its own need not be in the catalogue. Raises BadInput for one that nobody knows."""
    name = str(entry.get("name", ""))
    if entry.get("container") and not catalogue.is_known(name):
        harness, _, task = name.rpartition(".")
        kind = entry.get("endpoint_type") or "chat"
        return Task(harness or "unlisted", task, (kind,), entry["container"], False, "")
    return catalogue.find(name)


def endpoint_type(entry: dict[str, Any], task: Task) -> str:
    """What the task asks of the endpoint: the entry's own `endpoint_type`, else the first that the task supports (as the launcher does)."""
    return str(entry.get("endpoint_type") or task.endpoint_types[0])


def served(config: dict[str, Any]) -> set[str] | None:
    """The endpoint types that the model will be served with, or None when that cannot be told.

    A deployment says so by its `endpoints`; a hosted endpoint by its `type`, or by the end of its URL.
    """
    deployment = config["deployment"]
    if deployment["type"] != "none":
        return {name for name in deployment.get("endpoints") or {} if name != "health"} or None
    endpoint = (config.get("target") or {}).get("api_endpoint") or {}
    if endpoint.get("type"):
        return _with_images({endpoint["type"]})
    path = str(endpoint.get("url") or "").split("?")[0].rstrip("/")
    for ending, kind in (("/chat/completions", "chat"), ("/completions", "completions"), ("/embeddings", "embedding")):
        if path.endswith(ending):
            return _with_images({kind})
    return None


def _has_own_url(holder: dict[str, Any]) -> bool:
    """Whether a task, or all of them, ask another endpoint than the one that this run has."""
    inner = (holder.get("nemo_evaluator_config") or {}).get("target") or {}
    return bool((inner.get("api_endpoint") or {}).get("url"))


def _with_images(kinds: set[str]) -> set[str]:
    """A chat endpoint takes images (vlm) by the same path; whether the model does, only the model knows."""
    return kinds | {"vlm"} if "chat" in kinds else kinds


def check(config: dict[str, Any], definitions: list[Task], place: Callable[[str], str]) -> None:
    """Refuse tasks that cannot run: their harness is not here, or the endpoint does not serve what they ask. Raises BadInput.

    `place` gives file and line for a dotted key.
    """
    everywhere = served(config)
    for index, (entry, task) in enumerate(zip(config["evaluation"]["tasks"], definitions, strict=True)):
        kind = endpoint_type(entry, task)
        where = place(f"evaluation.tasks.{index}.name")
        kinds = None if _has_own_url(config["evaluation"]) or _has_own_url(entry) else everywhere
        if kinds is not None and kind not in kinds:
            reason = "log-likelihoods or raw text from a completions endpoint" if kind == "completions" else f"a {kind} endpoint"
            raise BadInput(
                f"{where}: task {entry['name']} needs {reason}, and this one serves {', '.join(sorted(kinds))} only; "
                f"choose another task (`make tasks MATCH={min(kinds)}`), or a deployment that serves {kind}"
            )
        if config["execution"]["type"] == "process" and not task.installed:
            extra = ", or install it with `make .venv/installed/lm-eval`" if task.harness == "lm-evaluation-harness" else ""
            raise BadInput(
                f"{where}: task {entry['name']}: its harness {task.harness} comes as a container and is not installed on this machine; "
                f"give a PROFILE that runs containers (docker, slurm){extra}"
            )


def labels(jobs: list[dict[str, Any]]) -> dict[int, str]:
    """What each job of a run is called in what a person sees, by its index: the task, or `task.N` where a run has it several times."""
    names = [job["task"] for job in jobs]
    return {job["index"]: job["task"] if names.count(job["task"]) == 1 else f"{job['task']}.{job['index']}" for job in jobs}
