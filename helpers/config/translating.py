"""Old forms, which existing configs contain and the launcher refuses, become those that it takes; each with a notice.

The rules for values are the launcher's own (cli/migrate_config.py: classify_value).
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from helpers.common import secrets
from helpers.common.errors import BadInput, located
from helpers.config.executor_description import Description

PREFIXES = ("host:", "lit:", "runtime:")
OC_ENV = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,[^}]*)?\}")
Place = Callable[[str], str]  # gives file and line of a dotted key
SECTIONS = ("deployment", "evaluation", "export")


def translate(config: dict[str, Any], place: Place) -> tuple[list[str], dict[str, str]]:
    """Change `config`, before interpolation, in place; returns the notices, and for each moved key its old key.

    `place` gives file and line of a dotted key. Raises BadInput for a value that cannot be translated.
    """
    notices: list[str] = []
    moved: dict[str, str] = {}
    _move_env_vars(config, notices, moved, place)
    _move_instances(config, notices, moved, place)
    deployment = config["deployment"]
    if "health_check_path" in deployment:
        _below(deployment, "endpoints")["health"] = deployment.pop("health_check_path")
        moved["deployment.endpoints.health"] = "deployment.health_check_path"
        notices.append(f"{place('deployment.health_check_path')}: deployment.health_check_path is now deployment.endpoints.health")
    _move_overrides(config, notices, moved, place)
    return notices, moved


def executor(config: dict[str, Any], place: Place, describe: Callable[[str], Description]) -> Description | None:
    """The executor of a config, whose name replaces the launcher's word for it in execution.type; None while that has no value.

    Raises BadInput, with the place, for an executor that does not exist or is not supported.
    """
    word = config["execution"].get("type")
    if word in (None, "", "???") or "${" in str(word):
        return None
    with located(f"{place('execution.type')}: execution.type"):
        found = describe(str(word))
    config["execution"]["type"] = found.name
    return found


def prefix(config: dict[str, Any], place: Place, moved: dict[str, str]) -> list[str]:
    """Give every environment variable of `config` its prefix, in place; returns the notices.

    This runs before interpolation, while `${oc.env:NAME}` can be recognised, and after it, for texts that contained another `${…}`.
    """
    notices = []
    for key, variables in _sections(config):
        for name, value in variables.items():
            full = f"{key}.{name}"
            where = place(moved.get(full, full))
            new = prefixed(name, value, f"{where}: {full}")
            if new != value:
                notices.append(f"{where}: {full}: {_hidden(value)} has no prefix; it is read as {_hidden(new)}")
                variables[name] = new
    return notices


def prefixed(name: str, value: Any, where: str) -> Any:
    """The value of the environment variable `name` with its prefix: `X`, `$X` and `${oc.env:X}` become host:X, other texts lit:TEXT.

    A value that contains another `${…}` stays as it is. Raises BadInput, without the value, for null, lists, mappings, secrets, and text
    that cannot be translated.
    """
    if value is None or isinstance(value, dict | list):
        found = "null" if value is None else "a list or mapping"
        raise BadInput(f"{where}: {found}: expected host:NAME, lit:TEXT or runtime:NAME")
    if not isinstance(value, str):
        return f"lit:{str(value).lower() if isinstance(value, bool) else value}"
    text = value.strip()
    if secrets.is_secret(text, name):
        raise BadInput(f"{where}: this is a secret; put it into the environment or .env, and write host:{name}")
    if variable := OC_ENV.fullmatch(text):
        return f"host:{variable[1]}"
    if "${oc.env:" in text or "${oc.decode:" in text:
        raise BadInput(f"{where}: ${{oc.…}} inside a text cannot be translated; write host:NAME, lit:TEXT or runtime:NAME")
    if "${" in text or text.startswith(PREFIXES) or text == "???":
        return value
    if not text:
        return "lit:"
    bare = text.removeprefix("$")
    if secrets.is_secret_name(name) and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", bare) and bare != name:
        fix = f"put it into the environment or .env, and write host:{name} (or lit:TEXT)"
        raise BadInput(f"{where}: this may be a secret; {fix}")
    return f"host:{bare}" if re.fullmatch(r"[A-Za-z_]\w*", bare) else f"lit:{text}"


def _below(holder: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping at a path below `holder`; created if it does not exist."""
    for name in names:
        if not isinstance(holder.get(name), dict):
            holder[name] = {}
        holder = holder[name]
    return holder


def _move_env_vars(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Place) -> None:
    variables = config["execution"].pop("env_vars", None) or {}
    if not isinstance(variables, dict):
        raise BadInput(f"{place('execution.env_vars')}: execution.env_vars: expected `NAME: host:NAME` lines")
    for name, value in variables.items():
        old = f"execution.env_vars.{name}"
        if name in SECTIONS and isinstance(value, dict | None):
            target, new = _below(config, name, "env_vars"), f"{name}.env_vars"
            for variable, spec in (value or {}).items():
                target.setdefault(variable, spec)
                moved[f"{new}.{variable}"] = f"{old}.{variable}"
        else:
            new = "env_vars"
            _below(config, new).setdefault(name, value)
            moved[f"{new}.{name}"] = old
        notices.append(f"{place(old)}: {old} is now {new}")


def _move_instances(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Place) -> None:
    deployment, execution = config["deployment"], config["execution"]
    if "multiple_instances" not in deployment:
        return
    several = deployment.pop("multiple_instances")
    if several and execution.get("num_instances", 1) == 1:
        # One instance per node, as the old switch meant.
        execution["num_instances"] = execution.get("num_nodes", 1)
        moved["execution.num_instances"] = "deployment.multiple_instances"
    text = f"deployment.multiple_instances is now execution.num_instances ({execution.get('num_instances', 1)})"
    notices.append(f"{place('deployment.multiple_instances')}: {text}")


def _move_overrides(config: dict[str, Any], notices: list[str], moved: dict[str, str], place: Place) -> None:
    evaluation = config["evaluation"]
    for key, holder in [("evaluation", evaluation), *((f"evaluation.tasks.{i}", task) for i, task in enumerate(evaluation["tasks"]))]:
        if not isinstance(holder.get("overrides"), dict):
            continue
        for dotted, value in holder.pop("overrides").items():
            *parents, last = str(dotted).split(".")
            _below(holder, "nemo_evaluator_config", *parents).setdefault(last, value)
            moved[f"{key}.nemo_evaluator_config.{dotted}"] = f"{key}.overrides.{dotted}"
        notices.append(f"{place(f'{key}.overrides')}: {key}.overrides is now {key}.nemo_evaluator_config")


def _sections(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every env_vars section that the launcher reads, by its dotted key."""
    holders = [("", config), *((f"{name}.", config.get(name)) for name in SECTIONS)]
    holders.append(("execution.auto_export.", (config.get("execution") or {}).get("auto_export")))
    entries = (config.get("evaluation") or {}).get("tasks") or []
    holders += [(f"evaluation.tasks.{index}.", entry) for index, entry in enumerate(entries)]
    holders += [(f"auxiliary_deployments.{name}.", one) for name, one in (config.get("auxiliary_deployments") or {}).items()]
    for key, holder in holders:
        if isinstance(holder, dict) and isinstance(holder.get("env_vars"), dict):
            yield f"{key}env_vars", holder["env_vars"]


def _hidden(value: Any) -> str:
    """A value for a message: names are shown, other text is not, since it may be a secret."""
    text = str(value)
    return text if re.fullmatch(r"((host|runtime):|\$)?[A-Z_][A-Z0-9_]*", text) else re.match(r"((host|lit|runtime):)?", text)[0] + "…"  # type: ignore[index]
