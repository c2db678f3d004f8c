"""helpers/executors/docker/executor.py: a submission is found again, and what the launcher does itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from nemo_evaluator_launcher.executors.base import ExecutionState

from helpers.common.errors import BadInput
from helpers.executors.docker.executor import EXECUTOR, STATES

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
    assert EXECUTOR.submitted_before(data) is None
    jobs.mkdir(parents=True)
    assert EXECUTOR.submitted_before(data) is None
    where = {"output_dir": str(jobs / "20261122_013512-aaaa" / "opposites.0")}
    execdb.ExecutionDB().write_job(execdb.JobData("a" * 16, "a" * 16 + ".0", time.time(), "local", where, data))
    assert EXECUTOR.submitted_before(data) == "a" * 16
    with pytest.raises(BadInput, match="another launcher config"):
        EXECUTOR.submitted_before(config("local", output_dir=str(jobs), mode="parallel"))


def test_the_launcher_has_the_states_that_we_know() -> None:
    assert {state.value for state in ExecutionState} == set(STATES)
