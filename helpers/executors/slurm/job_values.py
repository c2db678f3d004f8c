"""What the launcher's Slurm executor gets beside the config's own values."""

from pathlib import Path
from typing import Any

from helpers.executors import containers, unquoted

# The launcher's default, which says nothing: the run's id replaces it in the names of the jobs.
STOCK_SUBPROJECT = "nemo-evaluator-launcher"
# enroot mounts containers read-only unless its configuration says otherwise, and the launcher's jobs write scripts into theirs. Pyxis
# reads this in the environment of each srun: from the config's own env_vars it gets into that of the servers, the tasks and the export.
WRITABLE = {"PYXIS_CONTAINER_WRITABLE": "lit:1"}


def complete(data: dict[str, Any], run: Path | None) -> None:
    """Put the run's id into the job names of a launcher config, make its containers writable, have the harness report its progress.

    Raises BadInput for a value that the launcher's job scripts cannot hold.
    """
    execution = data["execution"]
    if run:
        own = execution.get("subproject")
        execution["subproject"] = run.name if own in (None, STOCK_SUBPROJECT) else f"{own}-{run.name}"
    if comment := execution.pop("sbatch_comment", None):
        # The launcher puts it between single quotes as it is, but quotes the values of flags.
        execution["sbatch_extra_flags"] = {"comment": comment, **(execution.get("sbatch_extra_flags") or {})}
    containers.count_requests(data)
    data["env_vars"] = {**WRITABLE, **(data.get("env_vars") or {})}
    unquoted.refuse(data)


def samples(data: dict[str, Any], entry: dict[str, Any]) -> int | None:
    """The number of samples that a task evaluates, by its own limit_samples, else by the common one; None if neither is set."""
    for holder in (entry, data["evaluation"]):
        node: Any = holder
        for key in ("nemo_evaluator_config", "config", "params", "limit_samples"):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, int) and not isinstance(node, bool):
            return node
    return None
