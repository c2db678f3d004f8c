"""What the launcher is handed for a compiled config (launcher.yaml), and what of it cannot be submitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.config import model_references
from helpers.credentials import gathering, wandb_server
from helpers.credentials.wandb_server import WANDB
from helpers.executors.slurm import job_values
from helpers.images import references

# The packages of a launcher's export job: as here. leptonai's later versions lack what the launcher imports.
EXPORT_PACKAGES = ("nemo-evaluator", WANDB)
EXPORT_LIMITS = ("leptonai<0.40",)


def make(
    config: dict[str, Any],
    run: Path | None,
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    paths: Mapping[str, str] | None = None,
    wandb: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the launcher is handed for a compiled config of the run folder `run`.

    `models`: of model.json, what each `${art:…}` is; `paths`: the .sqsh path of each image that has one; `wandb`: that section of
    credentials.json.
    """
    refuse_unready(config)
    data = {key: model_references.filled(value, models or {}) for key, value in config.items() if key != "run" and value is not None}
    execution = data["execution"]
    if execution["type"] in ("process", "local"):
        # A folder of this run alone: what lies in it says whether the run was submitted before.
        folder = Path(execution["output_dir"]).expanduser().resolve() / run.name if execution.get("output_dir") and run else run
        execution["output_dir"] = str((folder or Path.cwd()) / "jobs")
    _complete_export(data, wandb or {})
    references.put_paths(data, paths or {})
    if execution["type"] == "slurm":
        job_values.complete(data, run)
    return data


def _complete_export(data: dict[str, Any], wandb: Mapping[str, Any]) -> None:
    """Leave to the launcher the exports that are its own, with what they need; the others are made from here (exports/wandb_runs.py).

    The launcher does not read `enabled`: with a destination it exports all the same, and asks for the export's variables.
    """
    execution, kind = data["execution"], data["execution"]["type"]
    wanted = gathering.by_launcher(data, str(wandb.get("mode")))
    if not wanted:
        execution.pop("auto_export", None)
        (data.get("export") or {}).pop("env_vars", None)
        return
    given = execution["auto_export"] if isinstance(execution["auto_export"], dict) else {}
    execution["auto_export"] = {**given, "destinations": wanted}
    if kind == "slurm":
        execution["auto_export"]["launcher_install_cmd"] = given.get("launcher_install_cmd") or install_command(wanted)
    if kind == "slurm" and WANDB in wanted:
        export = data["export"] = {**(data.get("export") or {})}
        export[WANDB] = {**(export.get(WANDB) or {}), "entity": wandb.get("entity"), "project": wandb.get("project")}
        variables = [gathering.KEY, gathering.ENTITY, gathering.PROJECT]
        variables += [gathering.SERVER] if wandb.get("server") not in (None, wandb_server.CLOUD) else []
        export["env_vars"] = {**{name: f"host:{name}" for name in variables}, **(export.get("env_vars") or {})}


def install_command(destinations: list[str]) -> str:
    """What a launcher's export job installs: the versions at work here, instead of whatever is the newest that day."""
    extras = ",".join(name for name in destinations if name != "local")
    from importlib.metadata import version

    pins = [f"{name}=={version(name)}" for name in EXPORT_PACKAGES]
    packages = [f"nemo-evaluator-launcher{f'[{extras}]' if extras else ''}=={version('nemo-evaluator-launcher')}", *pins, *EXPORT_LIMITS]
    return "pip install --quiet --disable-pip-version-check " + " ".join(f'"{package}"' for package in packages)


def refuse_unready(data: dict[str, Any]) -> None:
    """Raise BadInput, by name, for what cannot be submitted."""
    kind = data["execution"]["type"]
    if kind not in ("process", "local", "slurm"):
        raise BadInput(
            f"execution.type {kind}: evaluations cannot be submitted to it yet; process (this machine), local (Docker) and slurm can; "
            "the plan for it is what `make dry-run` shows"
        )
