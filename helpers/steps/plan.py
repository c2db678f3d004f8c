"""What an evaluation will take, shown before anything is contacted: tasks, images, models, credentials, GPU-hours, job scripts."""

from pathlib import Path
from typing import Any

from helpers.common import console, files
from helpers.common.console import Cell
from helpers.common.errors import BadInput
from helpers.config import catalogue, model_references, tasks, tokenizers
from helpers.credentials import gathering
from helpers.executors import registry
from helpers.steps import resolve_models, squash_images, submit

HUB = {catalogue.PUBLIC: "hub", catalogue.NONE: "with the harness", catalogue.UNKNOWN: "unknown"}


def show(config_path: str, with_scripts: bool, remote: bool = False) -> None:
    """Print the plan for a compiled config on stdout; `with_scripts` adds the job script of each task.

    Contacts nothing; with `remote` the cluster is asked which images it has. Raises BadInput for an executor without job scripts.
    """
    config, _, _ = files.read_yaml(config_path, "config")
    executor, wandb = registry.get(config["execution"]["type"]), gathering.recorded(config_path)
    mode = wandb.get("mode", "online")
    images = {use.key: use.reference for use in executor.images(config, mode)}
    rows: list[list[str | Cell]] = []
    for index, entry in enumerate(config["evaluation"]["tasks"]):
        task = tasks.define(entry)
        image = images.get(("evaluation", "tasks", index, "container"), "none")
        rows.append([entry["name"], task.harness, tasks.endpoint_type(entry, task), HUB.get(task.hub, f"gated: {task.hub}"), image])
    console.print_table("Tasks", ["task", "harness", "endpoint", "data set", "image"], rows)
    if wanted := squash_images.foresee(config, remote, mode):
        print()
        console.print_table("Images", ["image", "for", "what happens to it"], [list(row) for row in wanted])
    _show_models(config)
    _show_tokenizer(config)
    _show_credentials(Path(config_path).with_name("credentials.json"))
    print(f"\n{executor.cost(config)}")
    try:
        # Images are named by reference in it, and models by stand-ins: `make eval` looks both up.
        data = submit.launcher_config(config, None, models=model_references.stand_ins(config), wandb=wandb)
    except BadInput as error:
        if with_scripts:
            raise
        console.notice(f"eval would stop here: {error}")
    else:
        for name, script in executor.job_scripts(data) if with_scripts else ():
            print(f"\n# ---- job script of {name} ----\n{script}")
    asked = "the cluster was asked, and nothing was changed there" if remote else "nothing was contacted"
    console.say(f"Dry run: {asked}. `make eval` with the same variables starts the evaluation.")


def _show_tokenizer(config: dict[str, Any]) -> None:
    """Say which tokenizer `make eval` assumes; a checkpoint on this machine is looked at, and has to fit the deployment."""
    executor, path = registry.get(config["execution"]["type"]), str(config["deployment"].get("checkpoint_path") or "")
    if not executor.cluster(config) and Path(path).exists():
        resolve_models.checkpoint(config, {})
    elif tokenizers.of_checkpoint(config):
        console.say("\nTokenizer: assumed in the checkpoint's own folder; `make eval` looks for it there and in its folder tokenizer.")


def _show_models(config: dict[str, Any]) -> None:
    """Print each model that is named by artifact, and where `make eval` will look it up."""
    if not (found := model_references.references(config)):
        return
    root = model_references.manifest_root(config)
    wandb = (config.get("run") or {}).get("wandb") or {}
    rows: list[list[str | Cell]] = []
    for key, one in found.items():
        entity, project = one.entity or wandb.get("entity") or "…", one.project or wandb.get("project") or "…"
        rows.append([f"run.{key}", one.text, f"{one.name}:{one.version}", root or f"W&B {entity}/{project}"])
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
        console.print_table("Credentials", ["variable", "from", "needed by"], rows)
