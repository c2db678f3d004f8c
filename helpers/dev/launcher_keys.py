"""Every configuration key that the pinned launcher knows.

Two sources are read: the launcher's default files, with the keys that they interpolate, and its pydantic models, with those of
nemo-evaluator. Keys that only the launcher's code reads are listed here by hand. In a key, `*` stands for a name that the user chooses, or
for an entry of a list.
"""

import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any, get_args, get_origin

from helpers.common import yaml_files
from helpers.common.files import SCHEMAS
from helpers.config import config_files
from helpers.launcher import api

OUTPUT = SCHEMAS / "launcher_keys.json"
PACKAGES = ("nemo-evaluator-launcher", "nemo-evaluator")
SECTIONS = ("execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")
# Keys that the launcher reads only to reject them, or by mistake: its own models reject them.
REFUSED = (
    "deployment.multiple_instances",
    "evaluation.config",
    "evaluation.overrides",
    "evaluation.tasks.*.config",
    "evaluation.tasks.*.overrides",
    "evaluation.tasks.*.target",
    "execution.env_vars",
)
# Keys that no default file and no model has, by the key above them. tests/helpers/dev/test_launcher_keys.py compares them with the code.
READ_BY_CODE = {
    "auxiliary_deployments.*": "cache_path checkpoint_path command command_template data_parallel_size env_prefix extra_args"
    " gpu_memory_utilization hf_model_handle image n_tasks num_instances num_nodes pipeline_parallel_size port pre_cmd served_model_name"
    " tensor_parallel_size type",
    "auxiliary_deployments.*.endpoints": "* health",
    "auxiliary_deployments.*.env_vars": "*",
    "deployment": "cache_path pre_cmd",
    "deployment.endpoints": "*",
    "deployment.env_vars": "*",
    "deployment.lepton_config": "api_token auto_scaler health max_replicas min_replicas resource_shape",
    "deployment.lepton_config.api_tokens.*": "value value_from",
    "deployment.lepton_config.envs.*": "value_from",
    "deployment.lepton_config.mounts": "cache_path enabled mount_path",
    "env_vars": "*",
    "evaluation.nemo_evaluator_config": "*",
    "evaluation.nemo_evaluator_config.metadata": "launcher_command launcher_resolved_config post_cmd pre_cmd versioning",
    "evaluation.tasks.*.nemo_evaluator_config": "*",
    "evaluation.tasks.*.nemo_evaluator_config.config": "output_dir type",
    "evaluation.tasks.*.nemo_evaluator_config.metadata": "launcher_command launcher_resolved_config post_cmd pre_cmd versioning",
    "evaluation.tasks.*.nemo_evaluator_config.target.api_endpoint": "api_key_name model_id type url",
    "execution": "evaluation_gpu_visible evaluation_tasks gpus_per_node",
    "execution.auto_export": "destinations export_image launcher_install_cmd",
    "execution.auto_export.export_mounts": "*",
    "execution.lepton_platform.deployment.platform_defaults": "*",
    "execution.lepton_platform.tasks.env_vars": "*",
    "execution.mounts.auxiliary": "*",
    "execution.mounts.deployment": "*",
    "execution.mounts.evaluation": "*",
    "execution.sbatch_extra_flags": "*",
    "export.env_vars": "*",
    "": "user_config_path",
}


def extract() -> dict[str, Any]:
    """The versions, the keys that are rejected, and each known key with the places that name it.

    Imports the launcher (1.6 s). Raises StepFailed when it is not installed.
    """
    found: dict[str, set[str]] = {}
    with api.quietly():
        pairs = [*_default_keys(), *_model_keys(), *((key, "code") for key in read_by_code())]
    for key, place in pairs:
        if not f"{key}.".startswith(tuple(f"{refused}." for refused in REFUSED)):
            found.setdefault(key, set()).add(place)
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "refused": list(REFUSED), "keys": {key: sorted(found[key]) for key in sorted(found)}}


def read_by_code() -> list[str]:
    """The keys of READ_BY_CODE, whole."""
    return [f"{above}.{name}".removeprefix(".") for above, names in READ_BY_CODE.items() for name in names.split()]


def _default_keys() -> Iterator[tuple[str, str]]:
    """The keys of the default group files, and those that their values interpolate, each with its file."""
    folder = config_files.launcher_configs()
    interpolated = re.compile(rf"\b(?:{'|'.join(SECTIONS)})(?:\.\w+)+")
    for path in sorted(folder.rglob("*.yaml")):
        group = path.relative_to(folder).parts[0]
        if group == "watcher":  # the checkpoint watcher's own config
            continue
        place = f"default file {path.relative_to(folder.parent.parent)}"
        text = path.read_text(encoding="utf-8")
        data = yaml_files.load(text)
        data.pop("defaults", None)
        for key in _leaves(data if path.parent == folder else {group: data}):
            yield key, place
        for expression in re.findall(r"\$\{[^}]*\}", text):
            for key in interpolated.findall(expression):
                yield key, place


def _leaves(data: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, f"{prefix}{key}.")
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for entry in data:
            yield from _leaves(entry, f"{prefix}*.")
    elif prefix:
        yield prefix[:-1]


def _model_keys() -> Iterator[tuple[str, str]]:
    """The keys of the pydantic models, at the places of a config that each of them describes, each with the class that has it."""
    from nemo_evaluator.adapters.adapter_config import LegacyAdapterConfig
    from nemo_evaluator.api.api_dataclasses import EvaluationConfig, EvaluationTarget
    from nemo_evaluator_launcher import exporters
    from nemo_evaluator_launcher.common.config_models import EvaluationModel, MountsModel

    inner = "evaluation.nemo_evaluator_config"
    models = [
        ("execution.mounts", MountsModel),
        ("evaluation", EvaluationModel),
        (f"{inner}.config", EvaluationConfig),
        (f"{inner}.target", EvaluationTarget),
        (f"{inner}.target.api_endpoint.adapter_config", LegacyAdapterConfig),
        ("target", EvaluationTarget),
        ("target.api_endpoint.adapter_config", LegacyAdapterConfig),
    ]
    models += [(f"export.{name}", exporters.get_exporter(name).config_class) for name in exporters.available_exporters()]
    for prefix, model in models:
        yield from _fields(model, prefix)


def _fields(model: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """The keys of a model below `prefix`, with those of the models in its fields; in a list of models the entry is `*`."""
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}"
        inner = list(_models(field.annotation, key))
        if not inner:
            yield key, f"model {model.__module__}.{model.__name__}"
        for place, other in inner:
            yield from _fields(other, place)


def _models(annotation: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The models with fields in an annotation such as `list[Model] | None`, each with its place."""
    if getattr(annotation, "model_fields", None):
        yield key, annotation
    for argument in get_args(annotation):
        yield from _models(argument, f"{key}.*" if get_origin(annotation) is list else key)
