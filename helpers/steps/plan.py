"""What an evaluation will take, told before anything is contacted: jobs, GPU-hours, images, credentials, and the sbatch scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.common import console, files
from helpers.common.console import Cell
from helpers.common.errors import BadInput
from helpers.config import model_references, tasks
from helpers.credentials import gathering
from helpers.executors.slurm import executor as slurm
from helpers.images import references
from helpers.launcher import launcher_yaml
from helpers.steps import squash_images


def show(config_path: str, with_scripts: bool, remote: bool = False) -> None:
    """Print the plan for a compiled config on stdout; `with_scripts` adds the sbatch script of each task.

    Contacts nothing; with `remote` the cluster is asked which images it has.
    """
    config, _, _ = files.read_yaml(config_path, "config")
    rows: list[list[str | Cell]] = []
    for entry in config["evaluation"]["tasks"]:
        task = tasks.define(entry)
        rows.append([entry["name"], task.harness, tasks.endpoint_type(entry, task), references.of_task(config, entry) or "none"])
    console.print_table("Tasks", ["task", "harness", "endpoint", "image"], rows)
    wandb = gathering.recorded(config_path)
    if wanted := squash_images.foresee(config, remote, wandb.get("mode", "online")):
        print()
        console.print_table("Images", ["image", "for", "what becomes of it"], [list(row) for row in wanted])
    _show_models(config)
    _show_credentials(Path(config_path).with_name("credentials.json"))
    print(f"\n{cost(config)}")
    if with_scripts:
        for name, script in sbatch_scripts(config, wandb):
            print(f"\n# ---- sbatch script of {name} ----\n{script}")
    try:
        launcher_yaml.make(config, None, models=model_references.stand_ins(config), wandb=wandb)
    except BadInput as error:
        console.notice(f"eval would stop here: {error}")
    asked = "the cluster was asked, and nothing changed there" if remote else "nothing was contacted"
    console.say(f"Dry run: {asked}. `make eval` with the same variables does it.")


def cost(config: dict[str, Any]) -> str:
    """One line: what the evaluation takes at most."""
    if config["execution"]["type"] == "slurm":
        return slurm.EXECUTOR.cost(config)
    return f"{len(config['evaluation']['tasks'])} tasks on this machine, one after another; no GPU-hours are charged."


def sbatch_scripts(config: dict[str, Any], wandb: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The sbatch script that would be submitted for each task; `wandb`: that section of credentials.json."""
    if config["execution"]["type"] != "slurm":
        raise BadInput(f"execution.type {config['execution']['type']} submits no sbatch script; jobs/TASK/run.sh of a run is what runs")
    yield from slurm.EXECUTOR.job_scripts(launcher_yaml.make(config, None, models=model_references.stand_ins(config), wandb=wandb))


def _show_models(config: dict[str, Any]) -> None:
    """Each model that is named by artifact, and where `make eval` will look it up."""
    if not (found := model_references.references(config)):
        return
    where = model_references.place(config)
    wandb = (config.get("run") or {}).get("wandb") or {}
    rows: list[list[str | Cell]] = []
    for key, one in found.items():
        entity, project = one.entity or wandb.get("entity") or "…", one.project or wandb.get("project") or "…"
        named = f"W&B {entity}/{project}" if where.backend == "wandb" else str(where.root)
        rows.append([f"run.{key}", one.text, f"{one.name}:{one.version}", named])
    print()
    console.print_table("Models", ["key", "named", "artifact", "looked up in"], rows)


def _show_credentials(path: Path) -> None:
    if not path.exists():
        return
    found = files.read_json(path, "credentials")
    rows: list[list[str | Cell]] = [[one["name"], one["source"], ", ".join(one["wanted_by"])] for one in found["variables"]]
    rows += [[one["name"], Cell("missing", "red"), ", ".join(one["wanted_by"])] for one in found["missing"]]
    if rows:
        print()
        console.print_table("Credentials", ["variable", "from", "wanted by"], rows)
