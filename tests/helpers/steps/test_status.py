"""Where jobs stand: what is over, what is lost, and what asking costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT
from helpers.common import files
from helpers.executors.process import jobs as process_jobs
from helpers.steps import status
from local_jobs import DONE, make_jobs, plan_of


@pytest.mark.parametrize(
    ("states", "over", "lost"),
    [
        (["SUCCEEDED", "FAILED", "CANCELLED"], True, False),
        (["SUCCEEDED", "INTERRUPTED"], False, True),
        (["INTERRUPTED", "RUNNING"], False, False),
        (["PENDING"], False, False),
        (["SUCCEEDED", "UNKNOWN"], False, False),
    ],
)
def test_what_is_over_and_what_is_lost(states: list[str], over: bool, lost: bool) -> None:
    seen = {"jobs": [{"state": state} for state in states]}
    assert status.is_over(seen) == over
    assert status.is_lost(seen) == lost


@pytest.mark.parametrize(
    ("total", "limit", "asked"), [("12", 3, 12), (None, 3, 3), (None, 0.5, None), (None, None, None), ("torn", None, None)]
)
def test_how_many_samples_a_task_asks(tmp_path: Path, total: str | None, limit: float | None, asked: int | None) -> None:
    (tmp_path / "artifacts").mkdir()
    if total:
        (tmp_path / "artifacts/total").write_text(total)
    if limit:
        (tmp_path / "run_config.yml").write_text(f"config: {{params: {{limit_samples: {limit}}}}}")
    assert status.samples_asked(tmp_path) == asked


def test_the_script_gives_valid_status_json_and_imports_neither_launcher_nor_wandb(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE})
    process_jobs.stage(jobs / "a.0", "exit", 1)
    job = {"task": "a", "index": 0, "harness": "h", "job_id": "i.0", "slurm_job_id": None, "remote_dir": None, "job_dir": str(jobs / "a.0")}
    document = {
        "made_by": "test",
        "made_from": {},
        "invocation_id": plan_of(jobs)["invocation_id"],
        "executor": "process",
        "submitted_at": "2026-11-22T01:02:03Z",
        "jobs": [job],
    }
    files.write_json(tmp_path / "submission.json", document, "submission")
    command = [sys.executable, "-X", "importtime", "scripts/status.py", "--submission", str(tmp_path / "submission.json"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["jobs"][0]["state"] == "FAILED"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "psutil" in imported
    assert not imported & {"nemo_evaluator_launcher", "nemo_evaluator", "wandb", "hydra", "omegaconf", "nemo_run"}
