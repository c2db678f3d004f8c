"""The parts of launcher.yaml that are the same for every executor."""

from collections.abc import Mapping
from typing import Any

from helpers.config import model_references
from helpers.credentials import wandb_login, wandb_server, wanted_variables
from helpers.credentials.wandb_server import WANDB

# The packages that a launcher's export job installs, in the versions used here. Later versions of leptonai lack what the launcher imports.
EXPORT_PACKAGES = ("nemo-evaluator", WANDB)
EXPORT_LIMITS = ("leptonai<0.40",)


def make(config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A compiled config as the launcher takes it: without the run section and null sections, with each `${art:…}` replaced."""
    return {key: model_references.filled(value, models) for key, value in config.items() if key != "run" and value is not None}


def complete_export(data: dict[str, Any], destinations: list[str], wandb: Mapping[str, Any], in_jobs: bool) -> None:
    """Leave these destinations to the launcher's own export, with what it needs; the others are exported to from this machine.

    `wandb`: that section of credentials.json; `in_jobs`: the export runs in a job that installs the launcher first. The launcher does not
    read `enabled`: it exports whenever there is a destination, and asks for the export's variables.
    """
    execution = data["execution"]
    if not destinations:
        execution.pop("auto_export", None)
        (data.get("export") or {}).pop("env_vars", None)
        return
    given = execution["auto_export"] if isinstance(execution["auto_export"], dict) else {}
    execution["auto_export"] = {**given, "destinations": destinations}
    if in_jobs:
        execution["auto_export"]["launcher_install_cmd"] = given.get("launcher_install_cmd") or install_command(destinations)
    if in_jobs and WANDB in destinations:
        export = data["export"] = {**(data.get("export") or {})}
        export[WANDB] = {**(export.get(WANDB) or {}), "entity": wandb.get("entity"), "project": wandb.get("project")}
        variables = [wanted_variables.KEY, wanted_variables.ENTITY, wanted_variables.PROJECT]
        variables += [wandb_login.SERVER] if wandb.get("server") not in (None, wandb_server.CLOUD) else []
        export["env_vars"] = {**{name: f"host:{name}" for name in variables}, **(export.get("env_vars") or {})}


def put_images(data: dict[str, Any], images: Mapping[tuple[str | int, ...], str]) -> None:
    """Put an image, the path of a squashed one or another form of a reference, at each of these config keys."""
    for key, image in images.items():
        node: Any = data
        for part in key[:-1]:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}  # the launcher's own image, which the config does not name
            node = node[part]
        node[key[-1]] = image


def install_command(destinations: list[str]) -> str:
    """The command with which a launcher's export job installs the versions that are used here, instead of the newest ones."""
    extras = ",".join(name for name in destinations if name != "local")
    from importlib.metadata import version

    pins = [f"{name}=={version(name)}" for name in EXPORT_PACKAGES]
    packages = [f"nemo-evaluator-launcher{f'[{extras}]' if extras else ''}=={version('nemo-evaluator-launcher')}", *pins, *EXPORT_LIMITS]
    return "pip install --quiet --disable-pip-version-check " + " ".join(f'"{package}"' for package in packages)
