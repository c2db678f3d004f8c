"""What must hold for a config once its values are known. Each check raises BadInput with the place, or returns notices for people."""

import re
from pathlib import Path
from typing import Any

from helpers.common import secrets
from helpers.common.errors import BadInput, nearest
from helpers.common.files import misfit, shown
from helpers.config import model_references, schema_keys
from helpers.config.composing import MISSING
from helpers.config.executor_description import Description, Executors
from helpers.config.tracing import Trace, leaves

# The launcher's deployments that serve the folder mounted at /checkpoint, unless hf_model_handle names a model.
NEED_CHECKPOINT = ("vllm", "vllm_ray", "sglang", "trtllm")
# The keys below deployment that only containers use, and those that only processes do.
FOR_CONTAINERS, FOR_PROCESSES = ("image", "pre_cmd", "cache_path"), ("venv",)


def refuse_secrets(config: dict[str, Any], trace: Trace) -> None:
    """Refuse text that looks like a key: it would get into the run's files."""
    for key, value in leaves(config):
        if isinstance(value, str) and secrets.is_secret(value):
            fix = "put it into the environment or .env, and name the variable (host:NAME in env_vars, target.api_endpoint.api_key_name)"
            raise BadInput(f"{trace.place(key)}: {key}: this is a secret; {fix}")


def unknown_keys(config: dict[str, Any], trace: Trace) -> list[str]:
    """A notice for each key that the schema does not have. Refuses a key that looks like a misspelt one."""
    notices: list[str] = []
    seen: set[str] = set()
    used = _interpolated(trace)
    for key, _ in leaves(config):
        parts = key.split(".")
        name = next((n for n in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)) if not schema_keys.is_known(n)), None)
        if name is None or name in seen or any(word == name or word.startswith(f"{name}.") for word in used):
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        siblings = [known.rpartition(".")[2] for known in schema_keys.all_keys() if known.rpartition(".")[0] == parent]
        if near := nearest(name.rpartition(".")[2], siblings):
            raise BadInput(f"{trace.place(key)}: unknown key {name}{near}")
        notices.append(f"{trace.place(key)}: neither the launcher nor evalmake knows the key {name}; it is passed on unchanged")
    return notices


def _interpolated(trace: Trace) -> set[str]:
    """The keys that some value interpolates: a config may define keys of its own for that."""
    return {name for text in trace.texts() for name in re.findall(r"\$\{([\w.]+)\}", text)}


def require_all(config: dict[str, Any], executor: Description, trace: Trace, path: Path) -> None:
    """Refuse a config with a `???`, or without a value that its endpoint, deployment or executor needs; the message lists all of them."""
    serving = config["deployment"].get("type")
    unused = ("run.",) if serving == "none" else ("run.", "target.api_endpoint.")
    missing = [key for key, value in leaves(config) if value == MISSING and not key.startswith(unused)]
    if serving == "none":
        needed = ["target.api_endpoint.url", "target.api_endpoint.model_id"]
    else:
        needed = ["deployment.served_model_name", "deployment.command"]
        needed += ["deployment.image"] if executor.runs_containers else []
        if serving in NEED_CHECKPOINT and not config["deployment"].get("hf_model_handle"):
            needed.append("deployment.checkpoint_path")
    missing += [key for key in (*needed, *executor.required) if not _value(config, key)]
    used = sorted({f"run.{use.key}" for use in model_references.uses(config)})
    missing += [key for key in used if _value(config, key) in (None, "", MISSING)]
    if missing:
        listed = list(dict.fromkeys(missing))
        settings = " ".join(f"{key}=…" for key in listed)
        verb = "has" if len(listed) == 1 else "have"
        hint = ", or a PROFILE" if any(key.startswith("execution.") for key in listed) else ""
        raise BadInput(f'{trace.place(listed[0], shown(path))}: {", ".join(listed)} {verb} no value; give SET="{settings}"{hint}')


def _value(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = (node or {}).get(part)
    return node


def unused_model(config: dict[str, Any], trace: Trace) -> list[str]:
    """A notice for a run.model that nothing uses, because the config names its checkpoint in another way."""
    if not (config.get("run") or {}).get("model") or any(use.key == "model" for use in model_references.uses(config)):
        return []
    deployment = config["deployment"]
    name = next((name for name in ("checkpoint_path", "hf_model_handle") if deployment.get(name)), "type")
    by = f"{trace.place(f'deployment.{name}')} sets deployment.{name}"
    return [f"{trace.place('run.model')}: run.model has no effect: {by}; write ${{art:model,path}} there to use it"]


def containers(config: dict[str, Any], executor: Description, executors: Executors, trace: Trace) -> list[str]:
    """A notice for each key of a deployment that has no effect in a container, or without one. Refuses port 0 for a container."""
    deployment = config["deployment"]
    if deployment["type"] == "none":
        return []
    if executor.runs_containers and deployment.get("port") == 0:
        others = " or ".join(one.name for one in executors.descriptions() if not one.runs_containers)
        why = f"0 (any free port) works only with execution.type {others}: nobody could know the port of a server in a container"
        raise BadInput(f'{trace.place("deployment.port")}: deployment.port: {why}; give SET="deployment.port=8000"')
    unused, why = (FOR_PROCESSES, "runs the server in a container") if executor.runs_containers else (FOR_CONTAINERS, "starts no container")
    keys = [f"deployment.{name}" for name in unused if deployment.get(name)]
    return [f"{trace.place(key)}: {key} has no effect: execution.type {executor.name} {why}" for key in keys]


def refuse_two_models(config: dict[str, Any], trace: Trace) -> None:
    """Refuse a hosted endpoint beside a deployment, as the launcher does; drop what the launcher's default config leaves open."""
    endpoint = (config.get("target") or {}).get("api_endpoint")
    if config["deployment"]["type"] == "none" or not isinstance(endpoint, dict):
        return
    for name in ("url", "model_id"):
        if endpoint.get(name) in (None, MISSING):
            endpoint.pop(name, None)
        else:
            key, other = f"target.api_endpoint.{name}", f"deployment.type {config['deployment']['type']} ({trace.place('deployment.type')})"
            fix = "remove it, or choose deployment.type none"
            raise BadInput(f"{trace.place(key)}: {key} names a hosted model, but {other} serves one; {fix}")


def validate(config: dict[str, Any], trace: Trace, path: Path) -> None:
    """Refuse a value that does not fit the schema of configs."""
    if found := misfit(config, "config"):
        key, message = found
        raise BadInput(f"{trace.place(key, shown(path)) if key else shown(path)}: {message}")
