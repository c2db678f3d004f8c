"""Looking up models: from config.yaml to model.json, and the table of models that a config can name."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from helpers.common import console, files
from helpers.common.console import Cell
from helpers.common.errors import BadInput
from helpers.common.files import shown
from helpers.config import checks, fit, model_references, tokenizers
from helpers.config.model_references import ModelStore
from helpers.credentials import gathering
from helpers.executors import registry as executors
from helpers.models import checkpoints
from helpers.steps import lineage, request

MADE_BY = "resolve_model.py"
MOST_VERSIONS = 6  # in a row of the table


def resolve(config_path: str, out: str, environ: MutableMapping[str, str]) -> None:
    """Write model.json, unless it exists: a recorded version stays, even if `latest` has moved.

    Puts into `environ` what W&B's SDK needs. Raises BadInput for an artifact that does not exist, Unreachable if its place does not answer.
    """
    config, seal, _ = files.read_yaml(config_path, "config")
    if out != "-" and Path(out).exists():
        if files.read_json(out, "model")["made_from"] != {"config.yaml": seal}:
            raise BadInput(f"{shown(out)} was not made from this config.yaml; delete {shown(out)} and the same command makes it again")
        return
    models: dict[str, dict[str, Any]] = {}
    if model_references.references(config):
        models = model_references.recorded(config, registry(config, request.env_folder(config_path), environ))
    data: dict[str, Any] = {"made_by": MADE_BY, "made_from": {"config.yaml": seal}, "models": models}
    if found := checkpoint(config, models):
        data["checkpoint"] = found
    lineage.refuse_other(out, files.seal_json(data)["seal"], "the name now means another artifact (an alias such as latest moves)")
    files.write_json(out, data, "model")
    for key, model in models.items():
        where = f", {model['path']}" if model["path"] else ""
        console.info(f"run.{key} = {model['reference']}: {model['name']} {model['version']}{where}")


def checkpoint(config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The `checkpoint` of model.json, after one look where its files are; None where nothing depends on them.

    Raises BadInput for a checkpoint that does not exist, lacks the tokenizer that tasks need, or does not fit the deployment; Unreachable.
    """
    deployment, executor = config["deployment"], executors.get(config["execution"]["type"])
    path = str(model_references.filled(deployment.get("checkpoint_path") or "", models))
    wants_tokenizer = bool(tokenizers.of_checkpoint(config))
    if not path.startswith("/") or not (wants_tokenizer or deployment["type"] in checks.NEED_CHECKPOINT):
        return None
    cluster = executor.cluster(config)
    found = checkpoints.look(path, cluster)
    where = f"deployment.checkpoint_path: {path}" + (f" on {cluster}" if cluster else "")
    if wants_tokenizer and found.tokenizer is None:
        looked = f"none of {', '.join(checkpoints.TOKENIZER_FILES)} is in it or in its folder tokenizer"
        fix = f'give SET="evaluation.{tokenizers.PARAMS}.tokenizer=NAME", a name on the Hugging Face hub or a folder'
        raise BadInput(f"{where} has no tokenizer, which tasks need: {looked}; {fix}")
    fit.check_model(deployment, found.numbers, where)
    return {"path": path, "tokenizer": found.tokenizer, "numbers": found.numbers}


def registry(config: Mapping[str, Any], env_folder: Path, environ: MutableMapping[str, str]) -> ModelStore:
    """The place where this config's artifacts are looked up. Raises BadInput for missing credentials, and Unreachable."""
    executor, root = executors.get(config["execution"]["type"]), model_references.manifest_root(config)
    if root is None:
        from helpers.models import wandb_artifacts

        found = gathering.gather(config, env_folder, environ, reads_local_files=executor.reads_local_files)
        found.require()
        found.apply(environ)
        return wandb_artifacts.WandbStore()
    from helpers.models import manifests

    return manifests.Manifests(root, executor.cluster(config))


def listing(config: Mapping[str, Any], match: str, env_folder: Path, environ: MutableMapping[str, str]) -> None:
    """Print the models that `run.model` can name in this config. Raises BadInput when none matches, and as `registry` does."""
    # As if the config named a model, so that the place of models is known.
    asked = {**config, "run": {**(config.get("run") or {}), "model": "any"}, "deployment": {"checkpoint_path": "${art:model,path}"}}
    where = registry(asked, env_folder, environ)
    found = where.listing(match)
    if not found:
        raise BadInput(f"{where.where} has no model" + (f" with {match!r} in its name" if match else "") + "; training writes models there")
    short = {name: one for one, name in model_references.names(asked).items()}
    rows: list[list[str | Cell]] = []
    for one in found:
        own = one.name.rpartition("/")[2]
        newest = " ".join(reversed(one.versions[-MOST_VERSIONS:])) + (" …" if len(one.versions) > MOST_VERSIONS else "")
        aliases = ", ".join(f"{alias} = {version}" for alias, version in sorted(one.aliases.items()))
        rows.append([short.get(own, own), one.name, newest, aliases])
    console.print_table(f"{len(found)} models in {where.where}", ["name", "artifact", "versions", "aliases"], rows)
    console.say(f'`make eval MODEL={rows[0][0]}:{found[0].versions[-1]} …` evaluates one, `make sweep MODELS="…"` several')
