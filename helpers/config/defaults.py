"""Values that a config gets where it leaves them open: the profile's, the executor's, and those that follow from other values."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from helpers.common import walltime
from helpers.common.errors import BadInput
from helpers.config import catalogue, clusters, model_references
from helpers.config.catalogue import Task
from helpers.config.composing import MISSING
from helpers.config.executor_description import Description
from helpers.config.profile_effects import ProfileEffects
from helpers.config.tracing import Trace

# The launcher's default for execution.username, which would override the user in ~/.ssh/config.
USER_HERE = "${oc.env:USER}"
# What the Hugging Face hub's library reads: a token, and where it keeps what it has downloaded.
HUB = ("HF_TOKEN", "HF_HOME")


def apply_profile(raw: dict[str, Any], given: ProfileEffects, executor: Description | None, trace: Trace) -> list[str]:
    """Put the profile's values where neither the config nor an override has one; a notice for each field that has no effect.

    `executor` is the config's; None: it takes the profile's. Raises BadInput if they differ.
    """
    if raw["execution"].get("username") == USER_HERE:
        raw["execution"]["username"] = None
    if given.profile is None or given.executor is None:
        return []
    if executor is None and raw["execution"].get("type") in (None, "", MISSING):
        raw["execution"]["type"] = given.executor.name
        trace.add("execution.type", given.executor.name, given.place("executor"))
    elif executor != given.executor:
        theirs = f"{given.place('executor')}: executor = {given.profile.fields['executor']!r} runs execution.type {given.executor.name}"
        ours = f"the config has {raw['execution']['type']} ({trace.place('execution.type')})"
        raise BadInput(f"{theirs}, but {ours}; choose another PROFILE or CONFIG")
    notices = []
    for effect in given.effects:
        dotted = ".".join(effect.key)
        if effect.key[0] == "deployment" and raw["deployment"].get("type") == "none":
            notices.append(f"{given.place(effect.field)}: {effect.field} has no effect: deployment.type none deploys nothing")
            continue
        node: Any = raw
        for part in effect.key[:-1]:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        current = node.get(effect.key[-1])
        if current not in (None, MISSING) and (trace.is_own(dotted) or effect.only_if_open):
            if current != effect.value and not given.is_used_in(current, effect.field):
                notices.append(f"{given.place(effect.field)}: {effect.field} has no effect: {trace.place(dotted)} sets {dotted}")
            continue
        node[effect.key[-1]] = effect.value
        trace.add(dotted, effect.value, given.place(effect.field))
    return notices


def apply(raw: dict[str, Any], executor: Description | None, trace: Trace) -> None:
    """Fill in what neither config nor profile sets: the executor's defaults, run.model's checkpoint, the served model name."""
    for key, (value, why) in (executor.defaults if executor else {}).items():
        section, _, name = key.partition(".")
        if raw[section].get(name) == MISSING:
            raw[section][name] = value
            trace.add(key, value, f"default: {why}")
    deployment = raw["deployment"]
    model = (raw.get("run") or {}).get("model")
    is_open = "checkpoint_path" in deployment and deployment["checkpoint_path"] in (None, MISSING)
    if model and model != MISSING and is_open and not deployment.get("hf_model_handle"):
        deployment["checkpoint_path"] = "${art:model,path}"
        trace.add("deployment.checkpoint_path", deployment["checkpoint_path"], "default: the artifact of run.model")
    if deployment.get("hf_model_handle") and deployment.get("checkpoint_path") == MISSING:
        deployment["checkpoint_path"] = None
        trace.add("deployment.checkpoint_path", None, "default: deployment.hf_model_handle names the model")
    if deployment.get("type") in (None, "none") or deployment.get("served_model_name") not in (None, MISSING):
        return
    checkpoint = deployment.get("hf_model_handle") or deployment.get("checkpoint_path")
    if model:
        name, why = str(model), "run.model"
    elif checkpoint and checkpoint != MISSING and "${" not in str(checkpoint):
        name, why = Path(str(checkpoint)).name, "the checkpoint's name"
    else:
        name, why = "model", "nothing else"
    deployment["served_model_name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    trace.add("deployment.served_model_name", deployment["served_model_name"], f"default: from {why}")


def apply_no_gpus(config: dict[str, Any], executor: Description | None, trace: Trace) -> None:
    """A hosted model needs no GPUs of ours: ask for none, unless the config itself does, or something else is deployed beside it."""
    execution, key = config["execution"], "execution.gres"
    if executor is None or executor.gpus_per_node is None or config["deployment"].get("type") != "none":
        return
    if execution.get("gres") and not trace.is_own(key) and not config.get("auxiliary_deployments"):
        execution["gres"] = None
        trace.add(key, None, "default: deployment.type none uses no GPUs")


def apply_readiness(config: dict[str, Any], executor: Description, trace: Trace) -> None:
    """Without a time limit for the server's start, take the one that the executor has for this type of deployment."""
    kind, key = config["deployment"]["type"], "endpoint_readiness_timeout"
    if executor.readiness and kind != "none" and config["execution"].get(key) is None:
        config["execution"][key] = executor.readiness(kind)
        trace.add(f"execution.{key}", config["execution"][key], f"default: for deployment.type {kind}")


def apply_hub(
    config: dict[str, Any], executor: Description, definitions: Sequence[Task], variables: Collection[str], trace: Trace
) -> list[str]:
    """Hand the Hugging Face hub's variables that are set here to the containers. A notice for a gated data set without a token.

    Processes of this machine have them anyway. What an env_vars section provides wins.
    """
    holders = [config, config["deployment"], config["evaluation"], *config["evaluation"]["tasks"]]
    given = {name for holder in holders for name in holder.get("env_vars") or {}}
    for name in HUB if executor.runs_containers else ():
        if name in variables and name not in given:
            config["env_vars"] = {**(config.get("env_vars") or {}), name: f"host:{name}"}
            trace.add(f"env_vars.{name}", f"host:{name}", f"default: {name} is set here")
    gated: dict[str, list[str]] = {}
    for task in definitions:
        if task.hub not in (catalogue.PUBLIC, catalogue.UNKNOWN, catalogue.NONE) and HUB[0] not in {*variables, *given}:
            gated.setdefault(task.hub, []).append(task.name)
    fix = f"`export {HUB[0]}=…` with the token of an account that was let in"
    return [f"the data set of {', '.join(names)} is gated: https://huggingface.co/datasets/{data}; {fix}" for data, names in gated.items()]


def apply_user(config: dict[str, Any], executor: Description, trace: Trace) -> None:
    """Without a user, take the one that ssh would log in as. The host has to be interpolated first."""
    execution = config["execution"]
    if executor.logs_in_over_ssh and not execution.get("username"):
        execution["username"] = clusters.ssh_user(execution.get("hostname"))
        trace.add("execution.username", execution["username"], f"default: the user that ssh logs in as on {execution.get('hostname')}")


def apply_artifact_names(config: dict[str, Any], trace: Trace) -> None:
    """Write out the artifacts of the short names, if an artifact names a model."""
    if not model_references.uses(config):
        return
    settings = config["run"].setdefault("artifacts", {})
    own = settings.get("names") or {}
    settings["names"] = model_references.names(config)
    for short, name in settings["names"].items():
        if own.get(short) != name:
            trace.add(f"run.artifacts.names.{short}", name, "default: the recipe's name")


def apply_walltime_form(config: dict[str, Any], executor: Description, trace: Trace) -> None:
    """Write walltimes in the only form that the launcher reads. Raises BadInput for what Slurm would not accept."""
    for name in ("walltime", "max_walltime") if executor.has_walltime else ():
        value = config["execution"].get(name)
        if value is None:
            continue
        place = f"{trace.place(f'execution.{name}')}: execution.{name}"
        if not isinstance(value, str):
            raise BadInput(f'{place}: {value!r} is a number; put the time in quotes, "HH:MM:SS" (YAML reads 12:30:45 as 45045)')
        total = walltime.seconds(value, place)
        if not walltime.LAUNCHER_FORM.fullmatch(value):
            config["execution"][name] = walltime.canonical(total)
