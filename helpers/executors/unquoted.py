"""Values that the launcher writes into its scripts without quotes, for Slurm and for Docker: which ones those scripts cannot hold."""

import re
from collections.abc import Iterator
from typing import Any

from helpers.common.errors import BadInput

# What the shell or sbatch would split or expand.
UNQUOTED = re.compile(r"""[\s"'$`;&|<>()*?!\\{}\[\]]""")


def refuse(data: dict[str, Any]) -> None:
    """Raise BadInput for a value that would break a job script or change what it does."""
    for key, value in _pasted(data):
        if found := UNQUOTED.search(value):
            character = "a space" if found[0].isspace() else found[0]
            raise BadInput(
                f"{key}: {value!r} contains {character}, which the launcher's job scripts cannot quote; use a name or a path without it"
            )


def _pasted(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    execution, deployment = data["execution"], data["deployment"]
    paths = ("image", "checkpoint_path", "cache_path")
    yield from _given("execution", execution, "account", "partition", "cpu_partition", "gres", "subproject", "output_dir", "gpus_per_node")
    export = execution.get("auto_export") or {}
    yield from _given("execution.auto_export", export, "export_image")
    if "'" in str(export.get("launcher_install_cmd") or ""):  # it stands in single quotes
        yield "execution.auto_export.launcher_install_cmd", "'"
    if deployment["type"] != "none":
        yield from _given("deployment", deployment, *paths)
    for name, one in (data.get("auxiliary_deployments") or {}).items():
        yield from _given(f"auxiliary_deployments.{name}", one or {}, *paths)
    mounts = execution.get("mounts") or {}
    held = {"deployment": mounts.get("deployment"), "evaluation": mounts.get("evaluation")}
    held |= {f"auxiliary.{name}": one for name, one in (mounts.get("auxiliary") or {}).items()}
    for user, pairs in held.items():
        for source, target in (pairs or {}).items():
            yield f"execution.mounts.{user}", str(source)
            yield f"execution.mounts.{user}", str(target)
    for index, entry in enumerate(data["evaluation"]["tasks"]):
        yield from _given(f"evaluation.tasks.{index}", entry, "name", "container", "dataset_dir", "dataset_mount_path")


def _given(place: str, holder: dict[str, Any], *keys: str) -> Iterator[tuple[str, str]]:
    return ((f"{place}.{key}", str(holder[key])) for key in keys if holder.get(key) is not None)
