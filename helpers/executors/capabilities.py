"""What the jobs of an executor can do, by `execution.type`. The one place that callers outside of executors/ ask."""

from __future__ import annotations

from helpers.credentials.auto_export import WandbExport


def reads_local_files(execution_type: str) -> bool:
    """Whether a job can read a file of this machine."""
    return execution_type in ("process", "local")


def wandb_export(execution_type: str) -> WandbExport:
    """Whether the jobs can export to W&B themselves."""
    return {"process": WandbExport.ALWAYS, "slurm": WandbExport.ONE_JOB_A_TASK}.get(execution_type, WandbExport.NEVER)
