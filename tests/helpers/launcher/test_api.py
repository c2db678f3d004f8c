"""The names of nemo-evaluator-launcher 0.2.6 and nemo-evaluator 0.2.8 that the local jobs stand on: each is still what we take it for."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nemo_evaluator.adapters import server
from nemo_evaluator.adapters.interceptors.progress_tracking_interceptor import ProgressTrackingInterceptor
from nemo_evaluator.core import evaluate
from nemo_evaluator_launcher.api import functional
from nemo_evaluator_launcher.common import execdb, helpers, mapping
from nemo_evaluator_launcher.executors.local import executor as local
from nemo_evaluator_launcher.executors.registry import get_executor
from omegaconf import OmegaConf

from helpers.common.errors import BadInput, StepFailed
from helpers.executors import job_folder
from helpers.executors.process import jobs, start
from helpers.executors.process import launcher_executor as process_executor
from helpers.launcher import api


def test_the_versions_are_those_that_were_read() -> None:
    assert version("nemo-evaluator-launcher") == "0.2.6"
    assert version("nemo-evaluator") == "0.2.8"


def test_run_eval_reads_the_task_mapping_through_the_name_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert functional.load_tasks_mapping is mapping.load_tasks_mapping or functional.load_tasks_mapping is api.task_mapping
    asked: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> dict[tuple[str, str], dict[str, Any]]:
        asked.append((arguments, options))
        return api.task_mapping(*arguments, **options)

    monkeypatch.setattr(api, "task_mapping", counted)
    monkeypatch.setattr(functional, "load_tasks_mapping", functional.load_tasks_mapping)
    started: list[Any] = []
    monkeypatch.setattr(
        process_executor.ProcessExecutor, "execute_eval", staticmethod(lambda cfg, dry_run: started.append(cfg) or "0" * 16)
    )
    config = {
        "execution": {"type": "process"},
        "deployment": {"type": "none"},
        "target": {"api_endpoint": {"url": "http://x", "model_id": "m"}},
        "evaluation": {"tasks": [{"name": "capitals", "nemo_evaluator_config": {"config": {"params": {"limit_samples": 1}}}}]},
    }
    assert api.run_eval(config) == "0" * 16
    assert started
    assert asked, "run_eval did not ask the replaced name"


@pytest.mark.slow
def test_our_mapping_has_the_form_of_the_launcher_s() -> None:
    ours, theirs = api.task_mapping(), mapping.load_tasks_mapping()
    key = next(key for key in theirs if key in ours)
    assert set(ours[key]) <= set(theirs[key]) | {"container"}
    assert set(ours) >= set(theirs)
    assert ("starter", "capitals") in ours


def test_our_executor_is_registered_and_has_what_the_interface_asks() -> None:
    assert get_executor("process") is process_executor.ProcessExecutor
    assert not getattr(process_executor.ProcessExecutor, "__abstractmethods__", None)


def test_the_stock_status_reads_the_stage_files_that_we_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "t.0"
    for name in ("logs", "artifacts"):
        (folder / name).mkdir(parents=True)
    job = execdb.JobData("i", "i.0", 0.0, "local", {"output_dir": str(folder)}, {})
    monkeypatch.setattr(local, "ExecutionDB", type("Database", (), {"get_job": lambda *_: job}))

    def stock() -> str:
        return str(local.LocalExecutor.get_status("i.0")[0].state.value)

    job_folder.stage(folder, "pre-start")
    assert stock() == "pending"
    job_folder.stage(folder, "running")
    assert stock() == "running"
    job_folder.stage(folder, "exit", 1)
    assert stock() == "failed"
    job_folder.stage(folder, "exit", 0)
    assert stock() == "success"
    (folder / "artifacts" / "progress").write_text("7")
    assert local.LocalExecutor.get_status("i.0")[0].progress == {"progress": 7}
    for code in (jobs.CANCELLED_CODE, jobs.INTERRUPTED_CODE):
        jobs.reopen(folder)
        jobs.mark_stopped([folder], code)
        assert stock() == "killed"


def test_the_interrupted_marker_has_nemo_evaluator_s_name() -> None:
    assert jobs.INTERRUPTED_MARKER == evaluate.INTERRUPTED_MARKER_FILENAME == local.INTERRUPTED_MARKER_FILENAME
    assert start.SHUTDOWN == evaluate.SHUTDOWN_TIMEOUT_ENV_VAR


def test_the_stock_resume_runs_the_script_that_we_write() -> None:
    assert '"run_all.sequential.sh"' in inspect.getsource(local.LocalExecutor.resume_invocation)


def test_the_job_database_has_the_fields_that_we_fill() -> None:
    assert [field.name for field in fields(execdb.JobData)] == ["invocation_id", "job_id", "timestamp", "executor", "data", "config"]
    assert re.fullmatch("[0-9a-f]{16}", execdb.generate_invocation_id())
    assert execdb.generate_job_id("a", 3) == "a.3"
    assert helpers.get_unique_task_name("capitals", 2) == "capitals.2"


def test_the_adapter_takes_the_port_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    port = process_executor_port()
    monkeypatch.setenv("ADAPTER_PORT", str(port))
    process = server.AdapterServerProcess.__new__(server.AdapterServerProcess)
    assert process._find_and_reserve_free_port() == port


def process_executor_port() -> int:
    from helpers.executors.process import ports

    reserved = ports.reserve()
    reserved.release()
    return reserved.number


def test_the_progress_url_is_expanded_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jobs.PROGRESS_URL, "http://127.0.0.1:1/here")
    params = ProgressTrackingInterceptor.Params(
        progress_tracking_url=process_executor.ADAPTER["progress_tracking_url"], output_dir=str(tmp_path)
    )
    assert ProgressTrackingInterceptor(params).progress_tracking_url == "http://127.0.0.1:1/here"


def test_telemetry_is_off_unless_the_user_set_it_and_jobs_keep_the_user_s_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo_evaluator.config import TelemetryLevel
    from nemo_evaluator.telemetry import TELEMETRY_LEVEL_ENV_VAR

    assert api.TELEMETRY == TELEMETRY_LEVEL_ENV_VAR
    assert TelemetryLevel.OFF.value == 0
    names = (api.TELEMETRY, *api._LOG_LEVELS)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with api.quietly():
        assert os.environ[api.TELEMETRY] == "0"
        assert os.environ["LOG_LEVEL"] == "WARNING"
        assert not {"LOG_LEVEL", "NEMO_EVALUATOR_LOG_LEVEL"} & set(api.environment())
    assert not set(names) & set(os.environ), "nothing is left for the code that runs later"
    monkeypatch.setenv(api.TELEMETRY, "2")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    with api.quietly():
        assert api.environment()[api.TELEMETRY] == "2"
        assert api.environment()["LOG_LEVEL"] == "DEBUG"


@pytest.mark.parametrize("error", [ValueError("bad\nvalue"), OSError(28, "No space left on device"), RuntimeError("x")])
def test_what_the_launcher_says_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_config: Any) -> str:
        raise error

    monkeypatch.setattr(functional, "run_eval", refuse)
    with pytest.raises(StepFailed, match="nemo-evaluator-launcher refused") as caught:
        api.run_eval({})
    assert "\n" not in str(caught.value)


def test_an_error_of_our_own_executor_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_config: Any) -> str:
        raise BadInput("fix it")

    monkeypatch.setattr(functional, "run_eval", refuse)
    with pytest.raises(BadInput, match="fix it"):
        api.run_eval({})


def test_the_config_of_a_task_is_the_launcher_s_merge(clean_env: dict[str, str]) -> None:
    cfg = OmegaConf.create(
        {
            "deployment": {"type": "generic", "served_model_name": "m"},
            "evaluation": {
                "nemo_evaluator_config": {"config": {"params": {"limit_samples": 9, "temperature": 0.5}}},
                "tasks": [{"name": "t", "nemo_evaluator_config": {"config": {"params": {"limit_samples": 2}}}}],
            },
        }
    )
    made = process_executor.run_config(cfg, 0, "h.t", "chat")
    assert made["config"]["params"] == {"limit_samples": 2, "temperature": 0.5}
    assert made["config"]["type"] == "h.t"
    assert made["target"]["api_endpoint"]["model_id"] == "m"
    assert made["target"]["api_endpoint"]["adapter_config"] == process_executor.ADAPTER
