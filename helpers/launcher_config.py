"""What the launcher is handed for a compiled config (launcher.yaml), and what of it cannot be submitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers import artifacts, slurm_config
from helpers.errors import BadInput


def make(config: dict[str, Any], run: Path | None, models: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """What the launcher is handed for a compiled config of the run folder `run`, with what model.json says for each `${art:…}`."""
    refuse_unready(config)
    data = {key: artifacts.filled(value, models or {}) for key, value in config.items() if key != "run" and value is not None}
    execution = data["execution"]
    if execution["type"] in ("process", "local"):
        # A folder of this run alone: what lies in it says whether the run was submitted before.
        folder = Path(execution["output_dir"]).expanduser().resolve() / run.name if execution.get("output_dir") and run else run
        execution["output_dir"] = str((folder or Path.cwd()) / "jobs")
    if execution["type"] == "slurm":
        slurm_config.complete(data, run)
    if (execution.get("auto_export") or {}).get("enabled") is False:
        # The launcher does not read `enabled`: with a destination it exports all the same, and asks for the export's variables.
        execution.pop("auto_export")
        (data.get("export") or {}).pop("env_vars", None)
    return data


def refuse_unready(data: dict[str, Any]) -> None:
    """Raise BadInput, by name, for what cannot be submitted."""
    kind = data["execution"]["type"]
    if kind not in ("process", "local", "slurm"):
        raise BadInput(
            f"execution.type {kind}: evaluations cannot be submitted to it yet; process (this machine), local (Docker) and slurm can; "
            "the plan for it is what `make dry-run` shows"
        )
