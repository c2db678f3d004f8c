"""credentials/auto_export.py: where results are exported to, and by whom."""

from __future__ import annotations

import pytest

from helpers.credentials import auto_export
from helpers.credentials.auto_export import WandbExport


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (None, False),
        ({}, False),
        ({"destinations": ["wandb"]}, True),
        ({"destinations": "wandb"}, True),
        ({"enabled": True, "destinations": ["local", "wandb"]}, True),
        ({"enabled": False, "destinations": ["wandb"]}, False),
        ({"destinations": ["mlflow"]}, False),
        (["wandb"], True),
    ],
)
def test_when_the_config_asks_for_an_export_to_wandb(given: object, asked: bool) -> None:
    assert auto_export.to_wandb({"execution": {"auto_export": given}}) is asked


@pytest.mark.parametrize(
    ("ability", "mode", "log_mode", "in_jobs"),
    [
        (WandbExport.ALWAYS, "online", None, True),
        (WandbExport.ALWAYS, "offline", "multi_task", True),
        (WandbExport.ONE_JOB_A_TASK, "online", None, True),
        (WandbExport.ONE_JOB_A_TASK, "online", "per_task", True),
        (WandbExport.ONE_JOB_A_TASK, "online", "multi_task", False),
        (WandbExport.ONE_JOB_A_TASK, "offline", None, False),
        (WandbExport.ONE_JOB_A_TASK, "disabled", None, False),
        (WandbExport.NEVER, "online", None, False),
    ],
)
def test_the_launcher_exports_to_wandb_only_where_jobs_can_and_to_other_places_always(
    ability: WandbExport, mode: str, log_mode: str | None, in_jobs: bool
) -> None:
    config = {"execution": {"auto_export": {"destinations": ["mlflow", "wandb"]}}, "export": {"wandb": {"log_mode": log_mode}}}
    assert auto_export.by_launcher(config, mode, ability) == (["mlflow", "wandb"] if in_jobs else ["mlflow"])
    assert auto_export.by_launcher({}, mode, ability) == []
