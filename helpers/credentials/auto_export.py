"""Where a config asks for results to be exported to, and which of these exports the launcher can do itself."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from helpers.credentials.wandb_server import WANDB

AUTO_EXPORT = "execution.auto_export"


class WandbExport(Enum):
    """Whether an executor's own jobs can export to W&B; where they cannot, results are exported from this machine."""

    NEVER = "never"
    ALWAYS = "always"
    # Online only, since files written offline would stay on the cluster. One job writes one W&B run: two writers would undo each other.
    ONE_JOB_A_TASK = "one job a task"


def destinations(config: Mapping[str, Any]) -> list[str]:
    """Where results are exported to after the evaluation, as the config asks.

    `execution.auto_export` is a list of destinations or has one, as for the launcher; `enabled: false`, which the launcher does not know,
    switches it off.
    """
    auto_export = section(config, "execution").get("auto_export")
    if isinstance(auto_export, Mapping):
        if auto_export.get("enabled") is False:
            return []
        auto_export = auto_export.get("destinations")
    return [auto_export] if isinstance(auto_export, str) else list(auto_export or [])


def to_wandb(config: Mapping[str, Any]) -> bool:
    """Whether the config asks for an export to W&B after the evaluation."""
    return WANDB in destinations(config)


def by_launcher(config: Mapping[str, Any], mode: str, wandb_export: WandbExport) -> list[str]:
    """The destinations that the launcher's own export serves; the others are served from this machine (exports/wandb_export.py).

    `mode` is W&B's; `wandb_export` is what the executor's jobs can do.
    """
    together = section(section(config, "export"), WANDB).get("log_mode") == "multi_task"
    in_jobs = wandb_export is WandbExport.ALWAYS or (wandb_export is WandbExport.ONE_JOB_A_TASK and mode == "online" and not together)
    return [name for name in destinations(config) if in_jobs or name != WANDB]


def section(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key; an empty one for anything else."""
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}
