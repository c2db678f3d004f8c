"""The variables of this machine that a compiled config needs."""

from collections.abc import Mapping
from typing import Any

from helpers.common.errors import BadInput
from helpers.config import model_references
from helpers.credentials.auto_export import AUTO_EXPORT, section
from helpers.credentials.dotenv_file import VARIABLE

KEY, PROJECT, ENTITY, MODE, TOKEN_FILE = "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"


def of_config(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The variables of this machine that the config names, each with the config keys that want it.

    They are the `host:NAME` values of every env_vars section that the launcher reads, and each api_key_name that no env_vars section of the
    same task provides under that name (the rule of the launcher's collect_eval_env_vars). With `enabled: false` in auto_export, the
    env_vars of export and execution.auto_export want nothing. Raises BadInput for an invalid variable name, without showing it: it may be
    the secret itself.
    """
    wanted: dict[str, list[str]] = {}

    def want(name: str, key: str) -> None:
        if not VARIABLE.fullmatch(name):
            raise BadInput(f"config: {key}: expected the name of a variable of this machine, such as HF_TOKEN, never the secret itself")
        keys = wanted.setdefault(name, [])
        if key not in keys:
            keys.append(key)

    evaluation = section(config, "evaluation")
    tasks = [(f"evaluation.tasks[{i}]", t) for i, t in enumerate(evaluation.get("tasks") or []) if isinstance(t, Mapping)]
    auxiliary = [(f"auxiliary_deployments.{n}", d) for n, d in section(config, "auxiliary_deployments").items() if isinstance(d, Mapping)]
    holders: list[tuple[str, Mapping[str, Any]]] = [("", config), ("deployment", section(config, "deployment")), *auxiliary]
    holders += [("evaluation", evaluation), *tasks]
    auto_export = section(config, "execution").get("auto_export")
    if not (isinstance(auto_export, Mapping) and auto_export.get("enabled") is False):
        holders.append(("export", section(config, "export")))
        if isinstance(auto_export, Mapping):
            holders.append((AUTO_EXPORT, auto_export))
    for where, holder in holders:
        for variable, value in section(holder, "env_vars").items():
            prefix, colon, name = str(value).partition(":")
            if prefix == "host" and colon:
                want(name, f"{where}.env_vars.{variable}".removeprefix("."))

    endpoint = ("target", "api_endpoint", "api_key_name")
    inner = ("nemo_evaluator_config", *endpoint)
    common = {**section(config, "env_vars"), **section(evaluation, "env_vars")}
    for where, task in tasks or [("", {})]:
        provided = {*common, *section(task, "env_vars")}
        for prefix, holder, path in (("", config, endpoint), ("evaluation.", evaluation, inner), (f"{where}.", task, inner)):
            name = text(holder, *path)
            if name and name not in provided:
                want(name, prefix + ".".join(path))
    return wanted


def of_artifacts(config: Mapping[str, Any], with_token_file: bool) -> dict[str, list[str]]:
    """The variables that looking up models in W&B takes, each with the config keys of those models.

    A key (unless an identity token file replaces it); for a reference without them also project and entity.
    """
    wanted: dict[str, list[str]] = {}
    for key, is_short in model_references.asks_wandb(config).items():
        for name in [*([] if with_token_file else [KEY]), *([PROJECT, ENTITY] if is_short else [])]:
            wanted.setdefault(name, []).append(key)
    return wanted


def text(holder: Mapping[str, Any], *path: str) -> str:
    """The value at a path of the config as text; "" where it is missing, null, or `???` (Hydra's word for a value still to be given)."""
    for key in path[:-1]:
        holder = section(holder, key)
    value = holder.get(path[-1])
    return "" if value is None or value == "???" else str(value)
