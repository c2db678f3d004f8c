"""The supervisor of local jobs, run for real on tasks of a few lines: what ends, what is left, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from endpoint import SHAPES
from helpers.common import processes
from helpers.common.errors import BadInput, StepFailed
from helpers.executors.process import children, start
from helpers.executors.process import jobs as process_jobs
from local_jobs import DONE, ENDPOINT, LONG, ended, kept, left, make_jobs, plan_of, reasons, served_by, states, supervisor_pid, until

pytestmark = pytest.mark.slow


@pytest.fixture
def jobs(tmp_path: Path, clean_env: dict[str, str]) -> Iterator[Path]:
    """A place for a jobs folder; whatever runs there is stopped after the test."""
    folder = tmp_path / "jobs"
    yield folder
    process_jobs.stop(folder, process_jobs.CANCELLED_CODE)


def begun(jobs: Path, task: str) -> bool:
    return (jobs / task / "artifacts" / "begun").exists()


def by_job(jobs: Path, job: str) -> list[psutil.Process]:
    return processes.marked(processes.JOB_MARK, f"{plan_of(jobs)['invocation_id']}.{job}")


def test_tasks_run_one_after_another_and_nothing_is_left(jobs: Path) -> None:
    order = f"{jobs}/order"
    make_jobs(jobs, {"a": f"echo a >> {order}; {DONE}", "b": f"echo b >> {order}; exit 3", "c": f"echo c >> {order}; {DONE}"})
    start.start(jobs)
    until(lambda: ended(jobs))
    assert (jobs / "order").read_text().split() == ["a", "b", "c"]
    assert states(jobs) == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert left(jobs) == []


def test_server_and_harness_are_in_process_groups_of_their_own(jobs: Path) -> None:
    make_jobs(jobs, {"a": LONG}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    supervisor = supervisor_pid(jobs)
    server, harness = by_job(jobs, "server")[0], by_job(jobs, "0")[0]
    groups = {os.getpgid(pid) for pid in (os.getpid(), supervisor, server.pid, harness.pid)}
    assert len(groups) == 4
    assert os.getsid(supervisor) != os.getsid(0)


def test_the_server_s_url_reaches_the_harness_and_the_scores_come_back(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"cp run_config.yml artifacts/seen; echo $ADAPTER_PORT > artifacts/port; {DONE}"}, served_by())
    start.start(jobs)
    until(lambda: ended(jobs))
    assert "/v1/chat/completions" in (jobs / "a.0/artifacts/seen").read_text()
    assert 20000 <= int((jobs / "a.0/artifacts/port").read_text()) <= 29999
    assert states(jobs) == ["SUCCEEDED"]


def test_of_two_supervisors_on_one_folder_only_one_runs(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"echo run >> artifacts/runs; {LONG}"})
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    first = supervisor_pid(jobs)
    second = subprocess.run(["bash", "run_all.sequential.sh"], cwd=jobs, timeout=30, check=True)
    assert second.returncode == 0
    assert supervisor_pid(jobs) == first
    assert (jobs / "a.0/artifacts/runs").read_text().split() == ["run"]
    assert start.start_again(jobs) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signalled_supervisor_leaves_nothing_and_keeps_what_was_done(jobs: Path, number: int) -> None:
    make_jobs(jobs, {"a": DONE, "b": LONG, "c": DONE}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "b.1"))
    for _ in range(3):  # an impatient person
        os.kill(supervisor_pid(jobs), number)
    until(lambda: ended(jobs))
    assert left(jobs) == []
    assert states(jobs) == ["SUCCEEDED", "INTERRUPTED", "INTERRUPTED"]


def test_a_closed_terminal_does_not_end_it(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"touch artifacts/begun; sleep 1; {DONE}"})
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    os.kill(supervisor_pid(jobs), signal.SIGHUP)
    until(lambda: ended(jobs))
    assert states(jobs) == ["SUCCEEDED"]


def test_with_an_owner_the_jobs_end_when_it_does(jobs: Path) -> None:
    make_jobs(jobs, {"a": LONG}, served_by())
    with subprocess.Popen(["sleep", "600"]) as owner:
        start.start(jobs, owner.pid)
        until(lambda: begun(jobs, "a.0"))
        owner.kill()
    until(lambda: ended(jobs))
    assert left(jobs) == []
    assert states(jobs) == ["INTERRUPTED"]


def test_with_an_owner_that_is_gone_already_nothing_is_run(jobs: Path) -> None:
    make_jobs(jobs, {"a": DONE})
    with subprocess.Popen(["true"]) as owner:
        pass
    start.start(jobs, owner.pid)
    until(lambda: ended(jobs))
    assert states(jobs) == ["INTERRUPTED"]


def test_a_killed_supervisor_is_reported_and_resumed(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"echo run >> ../a.runs; {DONE}", "b": f"[ -e ../again ] || {{ {LONG}; }}; {DONE}"}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "b.1"))
    invocation = plan_of(jobs)["invocation_id"]
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    until(lambda: ended(jobs))
    assert states(jobs) == ["SUCCEEDED", "INTERRUPTED"]
    assert "killed" in reasons(jobs)[1]
    orphans = processes.marked(process_jobs.MARK, invocation)
    assert orphans

    (jobs / "again").touch()
    assert [task["name"] for task in start.start_again(jobs)] == ["b"]
    until(lambda: ended(jobs))
    assert states(jobs) == ["SUCCEEDED", "SUCCEEDED"]
    assert (jobs / "a.runs").read_text().split() == ["run"], "a task that had ended is not run again"
    assert plan_of(jobs)["invocation_id"] == invocation
    assert not any(processes.is_alive(process) for process in orphans), "what the killed one left is stopped"


RENAMING = ENDPOINT.with_name("renaming_server.py")


@pytest.fixture
def renaming(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Process]]:
    """A task that runs beside a server whose processes overwrote their environment: those processes."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
    make_jobs(jobs, {"a": LONG}, f"exec '{sys.executable}' '{RENAMING}' --port $PORT --pids '{jobs}/pids'")
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    hidden = [psutil.Process(int(path.read_text())) for path in (jobs / "pids").iterdir()]
    assert len(hidden) == 3
    assert not any(process.environ().get(process_jobs.MARK) for process in hidden)
    assert {process.cmdline()[0] for process in hidden} == {"VLLM::ENGINE", "VLLM::WORKER", "VLLM::AWAY"}
    yield hidden
    process_jobs.stop(jobs, process_jobs.CANCELLED_CODE)
    for pid in {*(process.pid for process in hidden), *(int(path.read_text()) for path in (jobs / "pids").iterdir())}:
        with contextlib.suppress(psutil.Error):
            if "VLLM::" in psutil.Process(pid).cmdline()[0]:
                psutil.Process(pid).kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process prints to")
@pytest.mark.parametrize("killed", ["nothing", "the supervisor", "the supervisor and the server"])
def test_a_server_that_overwrites_its_environment_is_stopped_too(jobs: Path, renaming: list[psutil.Process], killed: str) -> None:
    server = by_job(jobs, "server")[0]
    if "supervisor" in killed:
        os.kill(supervisor_pid(jobs), signal.SIGKILL)
        until(lambda: ended(jobs))
    if "server" in killed:
        server.kill()
        processes.wait_until_ended([server], 5)
    assert process_jobs.stop(jobs, process_jobs.CANCELLED_CODE) >= len(renaming)
    assert not any(processes.is_alive(process) for process in (server, *renaming))
    assert process_jobs.stop(jobs, process_jobs.CANCELLED_CODE) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process prints to")
def test_the_next_supervisor_stops_a_renamed_server_that_a_killed_one_left(jobs: Path, renaming: list[psutil.Process]) -> None:
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    until(lambda: ended(jobs))
    by_job(jobs, "server")[0].kill()
    (jobs / "pids/ENGINE").unlink()
    start.start_again(jobs)
    until((jobs / "pids/ENGINE").exists)
    assert not any(processes.is_alive(process) for process in renaming)


def test_a_recorded_session_that_is_another_s_by_now_is_left_alone(jobs: Path) -> None:
    make_jobs(jobs, {"a": DONE})
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        process_jobs.add_session(jobs, stranger.pid)
        assert process_jobs.stop(jobs, process_jobs.CANCELLED_CODE) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_what_does_not_end_is_named_instead_of_called_stopped(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    make_jobs(jobs, {"a": LONG})
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "send_signal", lambda *_: None)  # as for one that hangs in the kernel
        pid = by_job(jobs, "0")[0].pid
        with pytest.raises(StepFailed, match=rf"process .*\b{pid}\b.* does not end"):
            process_jobs.stop(jobs, process_jobs.CANCELLED_CODE)


def test_what_an_earlier_attempt_left_is_not_taken_for_a_result(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"[ -e ../again ] && exit 0; {DONE}; {LONG}"})
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    process_jobs.stop(jobs, process_jobs.INTERRUPTED_CODE)
    assert states(jobs) == ["INTERRUPTED"]
    (jobs / "again").touch()
    start.start_again(jobs)
    until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED"]
    assert reasons(jobs) == ["the harness ended without results.yml"]


def test_a_dead_server_fails_its_task_and_the_next_and_says_so(jobs: Path) -> None:
    make_jobs(jobs, {"a": LONG, "b": DONE}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    by_job(jobs, "server")[0].kill()
    until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED", "FAILED"]
    assert "the server was killed by signal 9 while the task ran: the double listens (log: " in reasons(jobs)[0]
    assert "before the task" in reasons(jobs)[1]
    assert left(jobs) == []


def test_a_harness_that_ends_well_though_its_server_died_is_no_success(jobs: Path) -> None:
    make_jobs(jobs, {"a": f"touch artifacts/begun; while [ ! -e ../dead ]; do sleep 0.01; done; {DONE}"}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    server = by_job(jobs, "server")[0]
    server.kill()
    (jobs / "dead").touch()
    until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED"]


def test_a_killed_harness_fails_its_task_only(jobs: Path) -> None:
    make_jobs(jobs, {"a": LONG, "b": DONE}, served_by())
    start.start(jobs)
    until(lambda: begun(jobs, "a.0"))
    for process in by_job(jobs, "0"):
        process.kill()
    until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED", "SUCCEEDED"]
    assert reasons(jobs)[0].startswith("exit code 137")


@pytest.mark.parametrize(
    ("command", "deployment", "told"),
    [
        ("echo no room >&2; exit 5", {}, ["the server ended with code 5 before it was ready: no room", "server.log"]),
        ("no-such-server --port $PORT", {}, ["code 127", "no-such-server", "not found", "server.log"]),
        (
            served_by("--unhealthy"),
            {"readiness_timeout": 1},
            ["not healthy within 1 s", "execution.endpoint_readiness_timeout", "server.log"],
        ),
        ("echo $SECRET", {"env": {"SECRET": "host:NOT_SET_ANYWHERE"}}, ["NOT_SET_ANYWHERE", "env_vars.SECRET", "export"]),
    ],
)
def test_a_server_that_does_not_come_up_fails_every_task_in_one_line(
    jobs: Path, command: str, deployment: dict[str, object], told: list[str]
) -> None:
    make_jobs(jobs, {"a": DONE, "b": DONE}, command, **deployment)
    start.start(jobs)
    until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED", "FAILED"]
    for reason in reasons(jobs):
        assert "\n" not in reason
        assert all(text in reason for text in told), reason
    assert left(jobs) == []


def test_a_taken_port_fails_every_task_with_the_fix(jobs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        make_jobs(jobs, {"a": DONE}, served_by(), port=port)
        start.start(jobs)
        until(lambda: ended(jobs))
    assert states(jobs) == ["FAILED"]
    assert f"port {port} is in use" in reasons(jobs)[0]
    assert "deployment.port=0" in reasons(jobs)[0]


def test_what_a_harness_leaves_behind_is_stopped_also_in_a_session_of_its_own(jobs: Path) -> None:
    away = "setsid sleep 601 & sleep 602 & trap '' TERM;"
    make_jobs(jobs, {"a": f"{away} {DONE}", "b": LONG})
    start.start(jobs)
    until(lambda: begun(jobs, "b.1"))
    assert by_job(jobs, "0") == []
    process_jobs.stop(jobs, process_jobs.CANCELLED_CODE)
    assert left(jobs) == []


def test_a_harness_that_was_stopped_from_outside_is_no_success(jobs: Path) -> None:
    # nemo-evaluator 0.2.8 exits 0 on SIGTERM, and leaves its marker.
    make_jobs(jobs, {"a": f"touch artifacts/{process_jobs.INTERRUPTED_MARKER}; {DONE}; exit 0", "b": "exit 130"})
    start.start(jobs)
    until(lambda: ended(jobs))
    assert states(jobs) == ["CANCELLED", "FAILED"]


def test_the_harness_has_the_telemetry_level_of_the_user_and_none_without_one(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = f'echo "$NEMO_EVALUATOR_TELEMETRY_LEVEL/${{LOG_LEVEL-unset}}" > artifacts/level; {DONE}'
    for level, seen in (("", "0/unset"), ("1", "1/unset")):
        folder = jobs / f"level{level}"
        if level:
            monkeypatch.setenv("NEMO_EVALUATOR_TELEMETRY_LEVEL", level)
        make_jobs(folder, {"a": show})
        start.start(folder)
        until(lambda folder=folder: ended(folder))
        assert (folder / "a.0/artifacts/level").read_text().strip() == seen


def test_literal_values_arrive_unchanged_and_the_user_s_pythonpath_is_kept(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "a'b\"c $HOME `id` \\ \n second line"
    monkeypatch.setenv("PYTHONPATH", "/my/harnesses")
    monkeypatch.setenv("SECRET_SOURCE", value)
    make_jobs(
        jobs,
        {"a": f'printf %s "$LITERAL" > artifacts/lit; printf %s "$HOSTED" > artifacts/host; echo $PYTHONPATH > artifacts/path; {DONE}'},
    )
    plan = plan_of(jobs)
    plan["tasks"][0]["env"] = {"LITERAL": f"lit:{value}", "HOSTED": "host:SECRET_SOURCE"}
    (jobs / process_jobs.PLAN).write_text(json.dumps(plan))
    start.start(jobs)
    until(lambda: ended(jobs))
    assert (jobs / "a.0/artifacts/lit").read_text() == value
    assert (jobs / "a.0/artifacts/host").read_text() == value
    assert "/my/harnesses" in (jobs / "a.0/artifacts/path").read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "corp.example"}, "corp.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, "b,a,127.0.0.1,localhost"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_only_the_loopback_goes_past_the_user_s_proxy(before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HTTPS_PROXY": "http://proxy:3128", **before}.items():
        monkeypatch.setenv(name, value)
    child = children.environment({}, {})
    assert child["NO_PROXY"] == child["no_proxy"] == after
    assert child["HTTPS_PROXY"] == "http://proxy:3128"


def test_a_variable_that_is_wanted_and_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(BadInput, match=r"env_vars\.KEY needs ABSENT"):
        children.environment({"KEY": "host:ABSENT"}, {})


@pytest.mark.parametrize(("shape", "exported"), [("parts", True), ("null", False)])
def test_a_task_whose_answers_carried_nothing_is_not_exported(jobs: Path, shape: str, exported: bool) -> None:
    """The launcher's exporters read results.yml, where the harness has scored them as wrong."""
    make_jobs(jobs, {"a": DONE})
    plan = plan_of(jobs)
    plan["export"]["destinations"] = ["local"]
    (jobs / process_jobs.PLAN).write_text(json.dumps(plan))
    (jobs / "export.yml").write_text("export: {}")
    kept(jobs / "a.0/artifacts", SHAPES[shape])
    start.start(jobs)
    until(lambda: ended(jobs))
    assert (jobs / "export.log").exists() == exported
