"""What the launcher's Slurm executor gets beside the config's own values, and which values its job scripts cannot hold."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput

# The launcher's default, which says nothing: the run's id replaces it in the names of the jobs.
STOCK_SUBPROJECT = "nemo-evaluator-launcher"
# The harness counts its requests in artifacts/progress. nemo-evaluator 0.2.8 also posts each count to a URL, by default to port 8000 of the
# node, where the model may be. Port 9 (discard) refuses at once. Only every tenth count: each refusal is a line in the client's log.
ADAPTER = {"use_progress_tracking": True, "progress_tracking_url": "http://127.0.0.1:9", "progress_tracking_interval": 10}
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
    endpoint = data["evaluation"]
    for key in ("nemo_evaluator_config", "target", "api_endpoint", "adapter_config"):
        if endpoint.get(key) is None:
            endpoint[key] = {}
        endpoint = endpoint[key]
    if not {"interceptors", "use_progress_tracking"} & endpoint.keys():
        endpoint.update({key: value for key, value in ADAPTER.items() if key not in endpoint})
    if comment := execution.pop("sbatch_comment", None):
        # The launcher puts it between single quotes as it is, but quotes the values of flags.
        execution["sbatch_extra_flags"] = {"comment": comment, **(execution.get("sbatch_extra_flags") or {})}
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


def samples(data: dict[str, Any], entry: dict[str, Any]) -> int | None:
    """The number of samples that a task evaluates, by its own limit_samples, else by the common one; None if neither is set."""
    for holder in (entry, data["evaluation"]):
        node: Any = holder
        for key in ("nemo_evaluator_config", "config", "params", "limit_samples"):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, int) and not isinstance(node, bool):
            return node
    return None
