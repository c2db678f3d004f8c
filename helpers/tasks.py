"""Which tasks a run has: those of the config that were asked for, those added from the catalogue; and whether the endpoint serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helpers import catalogue
from helpers.catalogue import Task
from helpers.errors import BadInput, nearest


@dataclass(frozen=True)
class Chosen:
    """The tasks of a run: the config's entries, what each of them is, and what a person should be told."""

    entries: list[dict[str, Any]]
    definitions: list[Task]
    notices: list[str]


def choose(entries: list[dict[str, Any]], asked: list[str], where: str) -> Chosen:
    """Filter the config's task entries (`evaluation.tasks`) by the names asked for; nothing asked for means all.

    A name is a task, `harness.task`, or `task.N` (the Nth entry of the config). A name that the config lacks but the catalogue has is
    added. `where` names the config in messages. Raises BadInput for unknown and ambiguous names, and when no task is left.
    """
    if not asked:
        if not entries:
            raise BadInput(f'{where}: evaluation.tasks is empty; name tasks there, or give TASKS="…" (`make tasks` lists them)')
        return Chosen(entries, [define(entry) for entry in entries], [])
    wanted: set[int] = set()
    added: list[dict[str, Any]] = []
    notices = []
    for query in asked:
        matches = {i for i, entry in enumerate(entries) if _names(entry, i, query)}
        if matches:
            wanted |= matches
        elif query not in [entry["name"] for entry in added]:
            try:
                found = catalogue.find(query)
            except BadInput as error:
                near = nearest(query, [entry["name"] for entry in entries])
                raise BadInput(f"TASKS: {str(error).replace(' (did', near + ' (did', 1) if '(did' not in near else error}") from error
            added.append({"name": query})
            notices.append(f"task {query} is not in {where}: added from the catalogue ({found.full_name})")
    chosen = [entry for i, entry in enumerate(entries) if i in wanted] + added
    return Chosen(chosen, [define(entry) for entry in chosen], notices)


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
        return {endpoint["type"]}
    path = str(endpoint.get("url") or "").split("?")[0].rstrip("/")
    for ending, kind in (("/chat/completions", "chat"), ("/completions", "completions"), ("/embeddings", "embedding")):
        if path.endswith(ending):
            return {kind}
    return None


def check(config: dict[str, Any], definitions: list[Task]) -> None:
    """Refuse tasks that cannot run: their harness is not here, or the endpoint does not serve what they ask. Raises BadInput."""
    kinds = served(config)
    for entry, task in zip(config["evaluation"]["tasks"], definitions, strict=True):
        kind = endpoint_type(entry, task)
        if kinds is not None and kind not in kinds:
            reason = "log-likelihoods or raw text from a completions endpoint" if kind == "completions" else f"a {kind} endpoint"
            raise BadInput(
                f"task {entry['name']} needs {reason}, and this one serves {', '.join(sorted(kinds))} only; "
                f"choose another task (`make tasks MATCH={min(kinds)}`), or a deployment that serves {kind}"
            )
        if config["execution"]["type"] == "process" and not task.installed:
            extra = ", or install it with `make .venv/installed/lm-eval`" if task.harness == "lm-evaluation-harness" else ""
            raise BadInput(
                f"task {entry['name']}: its harness {task.harness} comes as a container and is not installed on this machine; "
                f"give a PROFILE that runs containers (docker, slurm){extra}"
            )


def _names(entry: dict[str, Any], index: int, query: str) -> bool:
    name = str(entry.get("name", ""))
    return query in (name, f"{name}.{index}") or query == name.rpartition(".")[2] or name == query.rpartition(".")[2]
