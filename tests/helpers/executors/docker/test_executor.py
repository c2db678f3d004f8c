"""helpers/executors/docker: a submission is found again, and what the launcher does for it. With a real daemon: tests/test_docker.py."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput, StepFailed, Unreachable
from helpers.executors.base import Handover
from helpers.executors.docker import daemon, supervisor
from helpers.executors.docker.executor import EXECUTOR
from helpers.executors.process import jobs as process_jobs
from helpers.executors.process import start

pytestmark = pytest.mark.slow
RUN = "20261122T013512Z-local-7f3a"


@pytest.fixture
def tools(tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker command that says it has no containers, and a job database of the test's own; no supervisor is started."""
    from nemo_evaluator_launcher.common import execdb

    monkeypatch.setattr(execdb.ExecutionDB, "_instance", None)
    monkeypatch.setattr(execdb.ExecutionDB, "_jobs", {})
    monkeypatch.setattr(execdb.ExecutionDB, "_invocations", {})
    monkeypatch.setattr(execdb, "EXEC_DB_DIR", tmp_path)
    monkeypatch.setattr(execdb, "EXEC_DB_FILE", tmp_path / "exec.jsonl")
    monkeypatch.setattr(start, "start_again", lambda *_: [])
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def launcher_config(jobs: Path, **execution: Any) -> dict[str, Any]:
    """A launcher config of one task on a hosted endpoint, as `complete` leaves it."""
    entry = {"name": "lm-evaluation-harness.ifeval", "env_vars": {"WORD": "lit:a $HOME `b`"}}
    data: dict[str, Any] = {
        "execution": {"output_dir": str(jobs), "mode": "sequential", **execution},
        "deployment": {"type": "none"},
        "target": {"api_endpoint": {"url": "http://x/v1/chat/completions", "model_id": "m"}},
        "evaluation": {"tasks": [entry]},
    }
    EXECUTOR.complete(data, None)
    data["execution"]["output_dir"] = str(jobs)
    return data


def test_jobs_are_written_for_their_owner_alone_and_found_again(tmp_path: Path, tools: Path) -> None:
    jobs = tmp_path / RUN / "jobs"
    data = launcher_config(jobs)
    assert EXECUTOR.submitted_before(data) is None
    submitted = EXECUTOR.submit(Handover({}, data, "", None), None)
    folder = Path(submitted.jobs[0]["job_dir"])
    assert EXECUTOR.folder_of(data) == folder.parent
    assert "='a $HOME `b`'\n" in (folder / ".secrets.env").read_text()
    assert not stat.S_IMODE((folder / ".secrets.env").stat().st_mode) & 0o077
    assert stat.S_IMODE((folder / "artifacts").stat().st_mode) == 0o777
    assert process_jobs.open_tasks(folder.parent) == [
        {"name": "lm-evaluation-harness.ifeval", "job_id": f"{submitted.invocation_id}.0", "dir": folder.name}
    ]
    assert EXECUTOR.submitted_before(data) == submitted.invocation_id
    assert EXECUTOR.submit(Handover({}, data, "", None), submitted.invocation_id) == submitted
    with pytest.raises(BadInput, match="another launcher config"):
        EXECUTOR.submitted_before({**data, "deployment": {"type": "generic"}})


def test_without_a_plan_nothing_was_started_and_the_jobs_are_written_again(tmp_path: Path, tools: Path) -> None:
    data = launcher_config(tmp_path / RUN / "jobs")
    first = EXECUTOR.submit(Handover({}, data, "", None), None)
    (EXECUTOR.folder_of(data) / process_jobs.PLAN).unlink()
    assert EXECUTOR.submitted_before(data) is None
    assert EXECUTOR.cancel_unrecorded(Handover({}, data, "", None)) is None
    second = EXECUTOR.submit(Handover({}, data, "", None), None)
    assert second.invocation_id != first.invocation_id
    assert EXECUTOR.submitted_before(data) == second.invocation_id


def test_each_container_that_the_launcher_s_script_starts_has_the_label_of_its_job(tmp_path: Path, tools: Path) -> None:
    data = launcher_config(tmp_path / RUN / "jobs", extra_docker_args="--init")
    folder = Path(EXECUTOR.submit(Handover({}, data, "", None), None).jobs[0]["job_dir"])
    script = (folder / "run.sh").read_text()
    assert script.count("docker run ") == script.count(f"--init {daemon.LABELLED} ") == 1
    assert f'task_dir="{folder}"' in script


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("deployment", "checkpoint_path", "/my models/m"),
        ("deployment", "image", "i$(x)"),
        ("execution", "output_dir", "/a:b"),
        ("execution", "output_dir", '/a"b'),
    ],
)
def test_a_value_that_the_launcher_s_scripts_cannot_hold_is_refused(tmp_path: Path, tools: Path, name: str, key: str, value: str) -> None:
    data = launcher_config(tmp_path)
    data["deployment"] = {"type": "generic", "image": "i"}
    data[name] |= {key: value}
    with pytest.raises(BadInput, match="cannot"):
        EXECUTOR.complete(data, tmp_path / RUN)


def test_a_folder_with_spaces_is_no_trouble(tmp_path: Path, tools: Path) -> None:
    data = launcher_config(tmp_path / "my runs; all" / RUN / "jobs")
    folder = Path(EXECUTOR.submit(Handover({}, data, "", None), None).jobs[0]["job_dir"])
    (tools / "docker").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$ARGS"\n')
    subprocess.run(["bash", "run.sh"], cwd=folder, env={**os.environ, "ARGS": str(tmp_path / "args")}, check=True)
    arguments = (tmp_path / "args").read_text().splitlines()
    assert f"{daemon.LABEL}={folder}" in arguments
    assert f"{folder}/artifacts:/results" in arguments


def test_a_task_that_the_stock_kill_names_is_cancelled(tmp_path: Path, tools: Path) -> None:
    data = launcher_config(tmp_path / RUN / "jobs")
    folder = Path(EXECUTOR.submit(Handover({}, data, "", None), None).jobs[0]["job_dir"])
    (task,) = process_jobs.open_tasks(folder.parent)
    (folder / "run.sh").write_text(f"echo {task['job_id']} > ../{supervisor.KILLED}; exit 3")
    supervisor.run(folder.parent, {"parallel": False, "served": False, "tasks": [task]}, False)
    assert process_jobs.state(folder, False)["state"] == "CANCELLED"


@pytest.mark.parametrize("code", [3, process_jobs.INTERRUPTED_CODE])
def test_a_script_that_ends_on_its_own_fails_its_task_and_is_not_repeated(tmp_path: Path, tools: Path, code: int) -> None:
    data = launcher_config(tmp_path / RUN / "jobs")
    folder = Path(EXECUTOR.submit(Handover({}, data, "", None), None).jobs[0]["job_dir"])
    (task,) = process_jobs.open_tasks(folder.parent)
    (folder / "run.sh").write_text(f"echo run >> runs; echo now {code} > logs/stage.exit; exit {code}")
    supervisor.run(folder.parent, {"parallel": False, "served": False, "tasks": [task]}, False)
    assert (folder / "runs").read_text() == "run\n"
    assert process_jobs.state(folder, False)["state"] == "FAILED"


def test_what_a_script_does_after_the_task_s_end_is_waited_for(tmp_path: Path, tools: Path) -> None:
    """The launcher's export."""
    data = launcher_config(tmp_path / RUN / "jobs")
    folder = Path(EXECUTOR.submit(Handover({}, data, "", None), None).jobs[0]["job_dir"])
    (task,) = process_jobs.open_tasks(folder.parent)
    (folder / "run.sh").write_text("echo now 0 > logs/stage.exit; sleep 1.5; touch exported")
    supervisor.run(folder.parent, {"parallel": False, "served": False, "tasks": [task]}, False)
    assert (folder / "exported").exists()


def test_a_daemon_that_does_not_answer_is_no_daemon_without_containers(tmp_path: Path, tools: Path) -> None:
    (tools / "docker").write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2; exit 1\n")
    with pytest.raises(Unreachable, match=r"which containers are left \(Cannot connect to the Docker daemon\.\); start it"):
        daemon.remove(tmp_path)


def test_a_container_that_stays_is_told(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "REMOVE_SECONDS", 0.05)
    monkeypatch.setattr(daemon, "call", lambda *_, **__: subprocess.CompletedProcess([], 0, f"{'c' * 64} {tmp_path}/a.0\n".encode(), b""))
    with pytest.raises(StepFailed, match="Docker does not remove cccccccccccc; restart Docker"):
        daemon.remove(tmp_path)
