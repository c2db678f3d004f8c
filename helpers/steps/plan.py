"""What an evaluation will take, told before anything is contacted: jobs, GPU-hours, images, credentials, and the sbatch scripts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.common import console, files, walltime, yaml_files
from helpers.common.console import Cell
from helpers.common.errors import BadInput
from helpers.config import model_references, tasks
from helpers.credentials import gathering
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
    """One line: jobs × nodes × GPUs × walltime = GPU-hours at worst, and what automatic resuming could make of it."""
    execution = config["execution"]
    jobs = len(config["evaluation"]["tasks"])
    if execution["type"] != "slurm":
        return f"{jobs} tasks on this machine, one after another; no GPU-hours are charged."
    nodes, gpus = execution.get("num_nodes") or 1, gpus_per_node(execution)
    seconds = walltime.seconds(execution["walltime"], "execution.walltime")
    hours = jobs * nodes * gpus * seconds / 3600
    text = f"{jobs} jobs × {nodes} nodes × {gpus} GPUs × {execution['walltime']} = {round(hours, 2):g} GPU-hours at worst"
    if execution.get("max_walltime"):
        most = jobs * nodes * gpus * walltime.seconds(execution["max_walltime"], "execution.max_walltime") / 3600
        text += f" (a job that reaches its walltime is resumed, up to max_walltime {execution['max_walltime']}: {most:g})"
    return text + "."


def gpus_per_node(execution: dict[str, Any]) -> int:
    """The GPUs that each node of a job is asked for: out of gpus_per_node, gres (gpu:8, gpu:h100:4), or the extra sbatch flags."""
    flags = execution.get("sbatch_extra_flags") or {}
    for value in (execution.get("gpus_per_node"), flags.get("gpus-per-node"), execution.get("gres"), flags.get("gres")):
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int):
            return value
        for part in str(value).split(","):
            if part.split(":")[0] == "gpu" or part.isdecimal() or re.fullmatch(r"[a-z]\w*:\d+", part):
                last = part.split(":")[-1]
                return int(last) if last.isdecimal() else 1
    return 0


def sbatch_scripts(config: dict[str, Any], wandb: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The sbatch script that the launcher would submit for each task. Values of host: variables are replaced before it sees them.

    `wandb`: that section of credentials.json. Images are by reference in it, and models stand-ins: both are told when they are looked up.
    """
    if config["execution"]["type"] != "slurm":
        raise BadInput(f"execution.type {config['execution']['type']} submits no sbatch script; jobs/TASK/run.sh of a run is what runs")
    from helpers.launcher import api

    data = launcher_yaml.make(config, None, models=model_references.stand_ins(config), wandb=wandb)
    names = set(re.findall(r"\bhost:([A-Za-z_]\w*)", yaml_files.dump(data)))
    kept = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "from-the-environment"))
    try:
        yield from api.sbatch_scripts(data)
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
