"""From a launcher config to a jobs folder: what is written, in which order, and what is not in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nemo_evaluator_launcher.common import execdb
from omegaconf import OmegaConf

from helpers.common.errors import BadInput, StepFailed
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import launcher_executor as executor
from helpers.executors.process import start as process_start
from helpers.launcher import api
from local_jobs import DONE, make_jobs


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job database of the test's own."""
    path = tmp_path / "exec.jsonl"
    monkeypatch.setattr(execdb, "EXEC_DB_FILE", path)
    monkeypatch.setattr(execdb, "EXEC_DB_DIR", tmp_path)
    monkeypatch.setattr(execdb.ExecutionDB, "_instance", None)
    monkeypatch.setattr(execdb.ExecutionDB, "_jobs", {})
    monkeypatch.setattr(execdb.ExecutionDB, "_invocations", {})
    return path


def config(tmp_path: Path, **task: Any) -> Any:
    return OmegaConf.create(
        {
            "execution": {"type": "process", "output_dir": str(tmp_path / "jobs")},
            "deployment": {
                "type": "generic",
                "command": "exec server",
                "served_model_name": "m",
                "endpoints": {"chat": "/v1/chat/completions", "health": "/health"},
                "env_vars": {"TOKEN": "host:HF_TOKEN"},
            },
            "evaluation": {"tasks": [{"name": "capitals", **task}, {"name": "opposites"}]},
        }
    )


def test_jobs_are_in_the_database_before_anything_is_started(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def start(jobs: Path, _owner: int | None) -> list[Any]:
        seen.append([json.loads(line)["job_id"] for line in database.read_text().splitlines()])
        assert job_folder.read(jobs / process_jobs.PLAN)
        return []

    monkeypatch.setattr(process_start, "start_again", start)
    invocation = executor.ProcessExecutor.execute_eval(config(tmp_path))
    assert seen == [[f"{invocation}.0", f"{invocation}.1"]]


def test_killed_after_each_stop_the_same_call_continues_with_the_same_invocation(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the plan, after the first job in the database, and before the start; each time the call is given again."""
    started: list[Path] = []
    monkeypatch.setattr(process_start, "start_again", lambda jobs, _owner: started.append(jobs))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(executor, "record_jobs", killed)
        with pytest.raises(KeyboardInterrupt):
            executor.ProcessExecutor.execute_eval(config(tmp_path))
    invocation = (job_folder.read(tmp_path / "jobs" / process_jobs.PLAN) or {})["invocation_id"]
    with monkeypatch.context() as patch:
        write = execdb.ExecutionDB.write_job
        patch.setattr(execdb.ExecutionDB, "write_job", lambda self, job: (write(self, job), killed()))
        with pytest.raises(KeyboardInterrupt):
            executor.ProcessExecutor.execute_eval(config(tmp_path))
    assert len(database.read_text().splitlines()) == 1
    assert not started
    for _ in range(2):
        assert executor.ProcessExecutor.execute_eval(config(tmp_path)) == invocation
    assert [json.loads(line)["job_id"] for line in database.read_text().splitlines()] == [f"{invocation}.0", f"{invocation}.1"]


def test_a_dry_run_writes_nothing(tmp_path: Path, database: Path) -> None:
    executor.ProcessExecutor.execute_eval(config(tmp_path), dry_run=True)
    assert not (tmp_path / "jobs").exists()
    assert not database.exists()


def test_the_plan_names_variables_and_holds_no_value(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    monkeypatch.setattr(process_start, "start_again", lambda *_: [])
    executor.ProcessExecutor.execute_eval(config(tmp_path))
    plan = job_folder.read(tmp_path / "jobs" / process_jobs.PLAN) or {}
    assert plan["deployment"]["env"] == {"TOKEN": "host:HF_TOKEN"}
    assert "hf_secret_value" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_pre_cmd_runs_only_when_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(api.TRUST_PRE_CMD, raising=False)
    with pytest.raises(BadInput, match="export NEMO_EVALUATOR_TRUST_PRE_CMD=1"):
        executor.script({"name": "t", "pre_cmd": "echo hi"}, {})
    monkeypatch.setenv(api.TRUST_PRE_CMD, "1")
    text = executor.script({"name": "t", "pre_cmd": "echo 'hi'", "post_cmd": 'echo "it\'s over"'}, {})
    path = tmp_path / "run.sh"
    path.write_text(text.rpartition(executor.shlex.quote(sys.executable))[0])
    assert subprocess.run(["bash", path], capture_output=True, text=True, check=True).stdout == "hi\nit's over\n"


def test_a_supervisor_that_cannot_start_is_reported_with_its_log(tmp_path: Path, clean_env: dict[str, str]) -> None:
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE})
    (jobs / "run_all.sequential.sh").write_text("echo no python here >&2; exit 9\n")
    with pytest.raises(StepFailed, match=r"supervisor\.log"):
        process_start.start(jobs)
    assert "no python here" in (jobs / "supervisor.log").read_text()


@pytest.mark.slow
def test_tasks_that_all_end_at_once_are_no_failed_start(tmp_path: Path, clean_env: dict[str, str]) -> None:
    for number in range(5):
        jobs = make_jobs(tmp_path / str(number), {"a": "exit 1"})
        process_start.start(jobs)


def test_names_with_spaces_and_quotes_are_run_as_they_are(tmp_path: Path, clean_env: dict[str, str]) -> None:
    jobs = make_jobs(tmp_path / 'it\'s a "folder" of $mine', {"a": DONE})
    process_start.start(jobs)
    from local_jobs import ended, states, until

    until(lambda: ended(jobs))
    assert states(jobs) == ["SUCCEEDED"]
