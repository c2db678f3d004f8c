"""Forms that configs of today contain and the launcher refuses, turned into those it takes; with a notice each.

The rules for values are the launcher's own (cli/migrate_config.py: classify_value).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from helpers.errors import BadInput

PREFIXES = ("host:", "lit:", "runtime:")
OC_ENV = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,[^}]*)?\}")
SECTIONS = ("deployment", "evaluation", "export")


def translate(config: dict[str, Any], where: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Change `config` (uninterpolated) in place; returns the notices, and for each moved key where its value stood before.

    `where` gives a place (file:line) for a dotted key. Raises BadInput for a value that nobody can translate.
    """
    notices: list[str] = []
    moved: dict[str, str] = {}

    def place(key: str) -> str:
        return next((text for known, text in where.items() if known == key or known.startswith(f"{key}.")), "config")

    _move_env_vars(config, notices, moved, place)
    _move_instances(config, notices, moved, place)
    deployment = config.get("deployment")
    if isinstance(deployment, dict) and "health_check_path" in deployment:
        path = deployment.pop("health_check_path")
        deployment.setdefault("endpoints", {})["health"] = path
        moved["deployment.endpoints.health"] = "deployment.health_check_path"
        notices.append(f"{place('deployment.health_check_path')}: deployment.health_check_path is deployment.endpoints.health now")
    _move_overrides(config, notices, moved, place)
    for key, variables in _sections(config):
        for name, value in variables.items():
            where_set = place(moved.get(f"{key}.{name}", f"{key}.{name}"))
            new = prefixed(value, f"{where_set}: {key}.{name}")
            if new != value:
                notices.append(f"{where_set}: {key}.{name}: {_hidden(value)} has no prefix: read as {_hidden(new)}")
                variables[name] = new
    return notices, moved


def prefixed(value: Any, where: str) -> str:
    """An environment variable's value with its prefix: `NAME`, `$NAME` and `${oc.env:NAME}` are host:NAME, all else is lit:TEXT."""
    if not isinstance(value, str):
        return f"lit:{str(value).lower() if isinstance(value, bool) else value}"
    text = value.strip()
    if text.startswith(PREFIXES):
        return value
    if "${oc.decode:" in text:
        raise BadInput(f"{where}: {text} cannot be translated; write host:NAME, lit:TEXT or runtime:NAME")
    if found := OC_ENV.fullmatch(text):
        return f"host:{found[1]}"
    name = text.removeprefix("$")
    return f"host:{name}" if re.fullmatch(r"[A-Za-z_]\w*", name) else f"lit:{text}"


def _move_env_vars(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Any) -> None:
    execution = config.get("execution")
    if not isinstance(execution, dict) or execution.get("env_vars") is None:
        return
    for name, value in execution.pop("env_vars").items():
        old = f"execution.env_vars.{name}"
        if name in SECTIONS and isinstance(value, dict | None):
            target, new = config.setdefault(name, {}).setdefault("env_vars", {}), f"{name}.env_vars"
            for variable, spec in (value or {}).items():
                target.setdefault(variable, spec)
                moved[f"{new}.{variable}"] = f"{old}.{variable}"
        else:
            config.setdefault("env_vars", {}).setdefault(name, value)
            new = "env_vars"
            moved[f"env_vars.{name}"] = old
        notices.append(f"{place(old)}: {old} is {new} now")


def _move_instances(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Any) -> None:
    deployment = config.get("deployment")
    if not isinstance(deployment, dict) or "multiple_instances" not in deployment:
        return
    several = deployment.pop("multiple_instances")
    execution = config.setdefault("execution", {})
    if several and execution.get("num_instances", 1) == 1:
        # One instance a node, as the old switch meant.
        execution["num_instances"] = execution.get("num_nodes", 1)
        moved["execution.num_instances"] = "deployment.multiple_instances"
    text = f"deployment.multiple_instances is execution.num_instances ({execution.get('num_instances', 1)}) now"
    notices.append(f"{place('deployment.multiple_instances')}: {text}")


def _move_overrides(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Any) -> None:
    evaluation = config.get("evaluation")
    if not isinstance(evaluation, dict):
        return
    holders = [("evaluation", evaluation)]
    holders += [(f"evaluation.tasks.{i}", task) for i, task in enumerate(evaluation.get("tasks") or []) if isinstance(task, dict)]
    for key, holder in holders:
        if not isinstance(holder.get("overrides"), dict):
            continue
        for dotted, value in holder.pop("overrides").items():
            node = holder.setdefault("nemo_evaluator_config", {})
            *parents, last = str(dotted).split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node.setdefault(last, value)
            moved[f"{key}.nemo_evaluator_config.{dotted}"] = f"{key}.overrides.{dotted}"
        notices.append(f"{place(f'{key}.overrides')}: {key}.overrides is {key}.nemo_evaluator_config now")


def _sections(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every env_vars section that the launcher reads, by its dotted key."""
    found = [("env_vars", config.get("env_vars"))]
    found += [(f"{name}.env_vars", (config.get(name) or {}).get("env_vars")) for name in SECTIONS]
    tasks = (config.get("evaluation") or {}).get("tasks") or []
    found += [(f"evaluation.tasks.{i}.env_vars", task.get("env_vars")) for i, task in enumerate(tasks) if isinstance(task, dict)]
    more = config.get("auxiliary_deployments") or {}
    found += [(f"auxiliary_deployments.{name}.env_vars", one.get("env_vars")) for name, one in more.items() if isinstance(one, dict)]
    for key, section in found:
        if isinstance(section, dict):
            yield key, section


def _hidden(value: Any) -> str:
    """A value for a message: names are shown, text is not (it may be a secret that somebody wrote there)."""
    text = str(value)
    return text if re.fullmatch(r"((host|runtime):|\$)?[A-Z_][A-Z0-9_]*", text) else re.match(r"((host|lit|runtime):)?", text)[0] + "…"  # type: ignore[index]
