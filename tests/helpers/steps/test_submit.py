"""helpers/steps/submit.py: a submission that was made is found again; nothing is submitted twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.steps import submit

RUN = "20261122T013512Z-local-7f3a"


def config(kind: str, **execution: Any) -> dict[str, Any]:
    tasks = [{"name": "opposites"}]
    return {"execution": {"type": kind, **execution}, "deployment": {"type": "none"}, "evaluation": {"tasks": tasks}}


def test_jobs_that_the_launcher_recorded_in_the_folder_are_found(
    tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_evaluator_launcher.common import execdb

    monkeypatch.setattr(execdb.ExecutionDB, "_instance", None)
    monkeypatch.setattr(execdb.ExecutionDB, "_jobs", {})
    monkeypatch.setattr(execdb.ExecutionDB, "_invocations", {})
    monkeypatch.setattr(execdb, "EXEC_DB_DIR", tmp_path)
    monkeypatch.setattr(execdb, "EXEC_DB_FILE", tmp_path / "exec.jsonl")
    jobs = tmp_path / RUN / "jobs"
    data = config("local", output_dir=str(jobs))
    assert submit.submitted_before(data) is None
    jobs.mkdir(parents=True)
    assert submit.submitted_before(data) is None
    where = {"output_dir": str(jobs / "20261122_013512-aaaa" / "opposites.0")}
    execdb.ExecutionDB().write_job(execdb.JobData("a" * 16, "a" * 16 + ".0", time.time(), "local", where, data))
    assert submit.submitted_before(data) == "a" * 16
    with pytest.raises(BadInput, match="another launcher config"):
        submit.submitted_before(config("local", output_dir=str(jobs), mode="parallel"))
