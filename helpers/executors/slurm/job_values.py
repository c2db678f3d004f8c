"""What the launcher's Slurm executor gets beside the config's own values, and which values its job scripts cannot hold."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.executors import containers

# The launcher's default, which says nothing: the run's id replaces it in the names of the jobs.
STOCK_SUBPROJECT = "nemo-evaluator-launcher"
# The launcher writes these values into its job scripts unquoted: the shell or sbatch would split or expand them.
UNQUOTED = re.compile(r"""[\s"'$`;&|<>()*?!\\{}\[\]]""")


def complete(data: dict[str, Any], run: Path | None) -> None:
    """Put the run's id into the job names of a launcher config, and have the harness report its progress.

    Raises BadInput for a value that the launcher's job scripts cannot hold.
    """
    execution = data["execution"]
    if run:
        own = execution.get("subproject")
        execution["subproject"] = run.name if own in (None, STOCK_SUBPROJECT) else f"{own}-{run.name}"
    containers.count_requests(data)
    refuse_unquoted(data)


def refuse_unquoted(data: dict[str, Any]) -> None:
    """Raise BadInput for a value that would break a job script or change what it does."""
    for key, value in _pasted(data):
        if found := UNQUOTED.search(value):
            character = "a space" if found[0].isspace() else found[0]
            raise BadInput(
                f"{key}: {value!r} contains {character}, which the launcher's job scripts cannot quote; use a name or a path without it"
            )


def _pasted(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    execution, deployment = data["execution"], data["deployment"]
    for key in ("account", "partition", "cpu_partition", "gres", "subproject", "output_dir", "gpus_per_node"):
        if execution.get(key) is not None:
            yield f"execution.{key}", str(execution[key])
    export = execution.get("auto_export") or {}
    yield "execution.auto_export.export_image", str(export.get("export_image") or "")
    # These stand in single quotes.
    for key, holder in (("sbatch_comment", execution), ("auto_export.launcher_install_cmd", export)):
        if "'" in str(holder.get(key.rpartition(".")[2]) or ""):
            yield f"execution.{key}", "'"
    for key in ("image", "checkpoint_path", "cache_path"):
        if deployment["type"] != "none" and deployment.get(key):
            yield f"deployment.{key}", str(deployment[key])
    for name, one in (data.get("auxiliary_deployments") or {}).items():
        for key in ("image", "checkpoint_path", "cache_path"):
            if (one or {}).get(key):
                yield f"auxiliary_deployments.{name}.{key}", str(one[key])
    mounts = execution.get("mounts") or {}
    held = {"deployment": mounts.get("deployment"), "evaluation": mounts.get("evaluation")}
    held |= {f"auxiliary.{name}": one for name, one in (mounts.get("auxiliary") or {}).items()}
    for user, pairs in held.items():
        for source, target in (pairs or {}).items():
            yield f"execution.mounts.{user}", str(source)
            yield f"execution.mounts.{user}", str(target)
    for index, entry in enumerate(data["evaluation"]["tasks"]):
        for key in ("name", "container", "dataset_dir", "dataset_mount_path"):
            if entry.get(key):
                yield f"evaluation.tasks.{index}.{key}", str(entry[key])


def samples(data: dict[str, Any], entry: dict[str, Any]) -> int | None:
    """The number of samples that a task evaluates, by its own limit_samples, else by the common one; None if neither is set."""
    for holder in (entry, data["evaluation"]):
        node: Any = holder
        for key in ("nemo_evaluator_config", "config", "params", "limit_samples"):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, int) and not isinstance(node, bool):
            return node
    return None
