"""The files of local jobs: what state they tell, and that only processes of the invocation are ever signalled."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path

import pytest

from helpers.common import processes
from helpers.common.errors import StepFailed
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import start
from local_jobs import DONE, LONG, left, make_jobs, states, until


@pytest.fixture
def job(tmp_path: Path) -> Path:
    for name in ("logs", "artifacts"):
        (tmp_path / "a.0" / name).mkdir(parents=True)
    return tmp_path / "a.0"


@pytest.mark.parametrize(
    ("running", "code", "files", "supervised", "state", "reason"),
    [
        (False, None, [], True, "PENDING", ""),
        (True, None, [], True, "RUNNING", ""),
        (False, None, [], False, "INTERRUPTED", "the process that ran it was killed"),
        (True, None, [], False, "INTERRUPTED", "the process that ran it was killed"),
        (True, 130, [process_jobs.INTERRUPTED_MARKER], False, "INTERRUPTED", "resumes it"),
        (True, 130, [process_jobs.INTERRUPTED_MARKER], True, "PENDING", ""),
        (True, 143, [process_jobs.INTERRUPTED_MARKER], False, "CANCELLED", ""),
        (True, 0, ["results.yml"], False, "SUCCEEDED", ""),
        (True, 0, [], False, "FAILED", "without results.yml"),
        (True, 0, ["results.yml", process_jobs.INTERRUPTED_MARKER], False, "CANCELLED", ""),
        (True, 7, ["results.yml"], False, "FAILED", "exit code 7: its logs are empty"),
    ],
)
def test_the_state_of_a_job(
    job: Path, running: bool, code: int | None, files: list[str], supervised: bool, state: str, reason: str
) -> None:
    if running:
        job_folder.stage(job, "running")
    if code is not None:
        job_folder.stage(job, "exit", code)
    for name in files:
        (job / "artifacts" / name).touch()
    found = process_jobs.state(job, supervised)
    assert found["state"] == state
    assert reason in found["reason"]
    assert bool(found["reason"]) == bool(reason)


def test_seconds_are_never_negative_though_the_clock_was_set_back(job: Path) -> None:
    (job / "logs" / "stage.running").write_text("2100-01-01T00:00:00.000Z\n")
    job_folder.stage(job, "exit", 0)
    assert process_jobs.state(job, True)["seconds"] == 0


@pytest.mark.parametrize("text", ["", "2026", "2026-11-22T01:02:03.004Z zero", "\0\xff"])
def test_a_torn_stage_file_is_no_end(job: Path, text: str) -> None:
    (job / "logs" / "stage.exit").write_text(text)
    assert process_jobs.state(job, True)["state"] == "PENDING"


def test_a_reused_pid_is_neither_alive_nor_signalled(tmp_path: Path) -> None:
    """supervisor.json names a pid that is now another process: this one."""
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE})
    (jobs / process_jobs.SUPERVISOR).write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
    (jobs / process_jobs.LOCK).touch()
    assert not process_jobs.is_supervised(jobs)
    assert states(jobs) == ["INTERRUPTED"]
    assert process_jobs.stop(jobs, process_jobs.CANCELLED_CODE) == 0  # had it signalled this process, no line below would run
    assert states(jobs) == ["CANCELLED"]


def test_the_lock_says_who_lives_and_another_host_s_supervisor_is_not_called_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE})
    (jobs / process_jobs.SUPERVISOR).write_text(json.dumps({"pid": 1, "host": "login7"}))
    with (jobs / process_jobs.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert process_jobs.is_supervised(jobs)
        assert states(jobs) == ["PENDING"]
        with pytest.raises(StepFailed, match="login7"):
            process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
    assert not process_jobs.is_supervised(jobs)


def test_interrupted_jobs_are_open_and_cancelled_ones_are_not(tmp_path: Path, clean_env: dict[str, str]) -> None:
    jobs = make_jobs(tmp_path / "jobs", {"a": DONE, "b": LONG})
    start.start(jobs)
    until((jobs / "b.1/artifacts/begun").exists)
    assert process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE) > 0
    assert left(jobs) == []
    assert states(jobs) == ["SUCCEEDED", "INTERRUPTED"]
    assert [task["name"] for task in process_jobs.open_tasks(jobs)] == ["b"]
    assert process_jobs.stop(jobs, process_jobs.CANCELLED_CODE) == 0
    assert states(jobs) == ["SUCCEEDED", "CANCELLED"]
    assert process_jobs.open_tasks(jobs) == []
    assert start.start_again(jobs) == []


def test_a_folder_without_a_plan_has_nothing_to_stop(tmp_path: Path) -> None:
    assert process_jobs.stop(tmp_path, process_jobs.CANCELLED_CODE) == 0
    assert process_jobs.open_tasks(tmp_path) == []
