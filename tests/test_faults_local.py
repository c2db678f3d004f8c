"""Evaluations on this machine, interrupted and killed at every point: nothing is left, nothing is lost, nothing runs twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from checkout import Make
from helpers.common import processes
from helpers.executors import job_folder
from helpers.executors.process import jobs as process_jobs
from local_jobs import left, plan_of, served_by, supervisor_pid, until

pytestmark = pytest.mark.slow

SLOW = served_by("--delay", "0.4")  # 40 questions, 4 at a time: 4 seconds a task
Start = Callable[..., "subprocess.Popen[str]"]


def configure(project: Path, command: str, name: str = "double", **deployment: Any) -> str:
    """A config whose model is a double; its name."""
    document = {
        "defaults": [{"execution": "process"}, {"deployment": "llamacpp"}, "_self_"],
        "deployment": {"command": command, "served_model_name": "double", "checkpoint_path": "none", **deployment},
        "evaluation": {"tasks": [{"name": "opposites"}, {"name": "capitals"}]},
    }
    (project / "configs" / f"{name}.yaml").write_text(json.dumps(document))
    return f"CONFIG={name}"


@pytest.fixture
def begin(project: Path, make: Make, clean_env: dict[str, str]) -> Iterator[Start]:
    """Start Make in a session of its own, as a terminal does: `os.killpg(begin("eval").pid, SIGINT)` is Ctrl-C."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["make", *arguments],
            cwd=project,
            env={**clean_env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_folder(project: Path) -> Path:
    """The only run there is."""
    (folder,) = (project / "runs").glob("*Z-*")
    return folder


def jobs_of(project: Path) -> Path:
    """The jobs folder of the only run, as soon as its plan is written."""
    return until(lambda: next(project.glob("runs/*/jobs/plan.json"), None)).parent


def started(jobs: Path, task: str) -> bool:
    """Whether a task has asked its first question."""
    return bool(job_folder.number_in(jobs / task / "artifacts" / "progress"))


def nobody_listens(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def script_code(project: Path, step: str) -> int:
    """The exit code that a script left in events.jsonl."""
    events = [json.loads(line) for line in (run_folder(project) / "events.jsonl").read_text().splitlines()]
    return int([event for event in events if event["step"] == step and event["event"] == "end"][-1]["exit_code"])


def test_ctrl_c_on_a_real_model_leaves_nothing_and_the_same_run_continues(make: Make, project: Path, begin: Start) -> None:
    process = begin("eval", "QUICK=4", "TASKS=opposites capitals")
    jobs = jobs_of(project)
    until(lambda: started(jobs, plan_of(jobs)["tasks"][1]["dir"]))
    listening = [p.pid for p in processes.marked(process_jobs.MARK, plan_of(jobs)["invocation_id"])]
    assert len(listening) >= 3
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "make results" in told
    assert "Traceback" not in told
    assert script_code(project, "follow") == 130
    assert left(jobs) == []
    assert nobody_listens(listening)

    partial = make("results")
    assert "(4)" in partial.stdout
    assert "INTERRUPTED" in partial.stdout
    assert not (run_folder(project) / "results.json").exists()
    first = [task for task in plan_of(jobs)["tasks"] if job_folder.exit_code(jobs / task["dir"]) == 0]
    kept = (jobs / first[0]["dir"] / "artifacts/results.yml").stat().st_mtime_ns

    done = make("eval", f"RUN={run_folder(project).name}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(4)") == 2
    assert (jobs / first[0]["dir"] / "artifacts/results.yml").stat().st_mtime_ns == kept
    assert left(jobs) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_terminal_s_processes_leaves_nothing(project: Path, begin: Start, number: int) -> None:
    process = begin("eval", configure(project, SLOW))
    jobs = jobs_of(project)
    until(lambda: started(jobs, "opposites.0"))
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    until(lambda: not left(jobs))


def test_ctrl_c_while_the_server_starts_leaves_nothing(project: Path, begin: Start) -> None:
    process = begin("eval", configure(project, served_by("--unhealthy")))
    jobs = jobs_of(project)
    until(lambda: (jobs / "server.log").exists() and (jobs / "server.log").read_text())
    until(lambda: '"step": "follow"' in (run_folder(project) / "events.jsonl").read_text())
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    until(lambda: not left(jobs))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_is_submitted_leaves_nothing(make: Make, project: Path, begin: Start, number: int) -> None:
    config = configure(project, served_by())
    process = begin("batch", config, "QUICK=1", "TASKS=opposites")
    jobs = jobs_of(project)  # the plan is written, and the supervisor not yet started, or just now
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    until(lambda: not left(jobs))
    done = make("eval", f"RUN={run_folder(project).name}")
    assert done.returncode == 0, done.stderr
    assert "(1)" in done.stdout


@pytest.mark.parametrize("point", ["plan.json", "server.log"])
def test_killed_while_it_is_submitted_the_same_run_continues_and_nothing_is_submitted_twice(
    make: Make, project: Path, begin: Start, clean_env: dict[str, str], point: str
) -> None:
    process = begin("batch", configure(project, served_by()), "QUICK=1")
    until(lambda: next(project.glob(f"runs/*/jobs/{point}"), None))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = make("eval", f"RUN={run_folder(project).name}")
    assert done.returncode == 0, done.stderr
    database = Path(clean_env["HOME"]) / ".nemo-evaluator/exec-db/exec.v1.jsonl"
    recorded = [json.loads(line)["job_id"] for line in database.read_text().splitlines()]
    assert len(recorded) == len(set(recorded)) == 2
    assert left(jobs_of(project)) == []


def test_batch_returns_at_once_and_status_logs_cancel_and_results_work_meanwhile(make: Make, project: Path) -> None:
    submitted = make("batch", configure(project, SLOW))
    assert submitted.returncode == 0, submitted.stderr
    jobs = jobs_of(project)
    assert process_jobs.is_supervised(jobs)
    until(lambda: started(jobs, "opposites.0"))
    status = make("status")
    assert "RUNNING" in status.stdout
    assert "PENDING" in status.stdout
    assert re.search(r"\d+/40", status.stdout)
    logs = make("logs", "TASKS=opposites")
    assert "opposites | " in logs.stdout
    partial = make("results")
    assert partial.returncode == 0
    assert "RUNNING" in partial.stdout
    assert make("cancel").returncode == 0
    assert left(jobs) == []
    assert make("status").stdout.count("CANCELLED") == 2
    ended = make("eval", f"RUN={run_folder(project).name}")
    assert ended.returncode == 2, "what was cancelled is not resumed"
    assert script_code(project, "follow") == 0
    assert left(jobs) == []
    assert make("cancel").returncode == 0


def test_a_killed_supervisor_is_reported_by_those_who_wait_and_the_same_run_continues(make: Make, project: Path, begin: Start) -> None:
    process = begin("eval", configure(project, SLOW), "QUICK=8")
    jobs = jobs_of(project)
    until(lambda: started(jobs, "opposites.0"))
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    _, told = process.communicate(timeout=30)
    run = run_folder(project)
    assert f"make eval RUN={run.name}" in told
    assert script_code(project, "follow") == 1
    assert left(jobs) == []
    assert "INTERRUPTED" in make("status").stdout
    assert not (run / "results.json").exists()
    done = make("eval", f"RUN={run.name}", timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(8)") == 2


def test_a_server_that_dies_half_way_gives_no_score_and_says_why(make: Make, project: Path) -> None:
    done = make("eval", configure(project, served_by("--die-after", "7"), name="dying"))
    assert done.returncode == 2
    run = run_folder(project)
    results = json.loads((run / "results.json").read_text())
    assert results["rows"] == []
    assert [task["state"] for task in results["tasks"]] == ["FAILED", "FAILED"]
    for task, folder in (("opposites", "opposites.0"), ("capitals", "capitals.1")):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"✗ {task} FAILED: ")]
        assert "code 7" in line
        assert f"runs/{run.name}/jobs/{folder}/" in done.stderr
    assert "Error 4" in done.stderr
    good = make("eval", configure(project, served_by(), name="good"), "QUICK=1", "TASKS=opposites")
    assert good.returncode == 0, "the next run is possible"


def test_two_evaluations_at_once_never_share_a_port(make: Make, project: Path) -> None:
    config = configure(project, served_by("--delay", "4"))  # 40 seconds a task: the first is still at work when the second is
    for _ in range(2):
        assert make("batch", config).returncode == 0
    plans = list(project.glob("runs/*/jobs/plan.json"))
    ports: set[str] = set()
    for plan in plans:
        until(lambda plan=plan: started(plan.parent, "opposites.0"))
        invocation = plan_of(plan.parent)["invocation_id"]
        for job, variable in ((f"{invocation}.server", "PORT"), (f"{invocation}.0", "ADAPTER_PORT")):
            ports.add(until(lambda job=job: processes.marked(processes.JOB_MARK, job))[0].environ()[variable])
    assert len(ports) == 4
    for plan in plans:
        assert process_jobs.stop(plan.parent, process_jobs.CANCELLED_CODE) > 0
