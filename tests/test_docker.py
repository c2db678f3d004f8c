"""Evaluations in containers of a real Docker daemon: to their end, stopped and killed at every stage, and without a GPU."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT, Make, make_in
from docker_daemon import IMAGE, Daemon, daemon, load_image
from helpers.executors import job_folder
from helpers.executors.docker.executor import EXECUTOR
from helpers.executors.process import jobs as process_jobs
from local_jobs import ended, left, supervisor_pid, until

pytestmark = pytest.mark.slow

TASKS = ("toy.sums", "toy.differences")
LONG = 600  # seconds between two questions: the task is at work until it is stopped
Configure = Callable[..., str]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the toy image."""
    with daemon(tmp_path_factory.mktemp("d")) as ours:
        load_image(ours)
        yield ours


@pytest.fixture
def docker(toys: Daemon, clean_env: dict[str, str], project: Path) -> Iterator[Daemon]:
    """The daemon for what the test starts; nothing is left of a run after it."""
    clean_env |= {"DOCKER_HOST": toys.host, "NEMO_EVALUATOR_TRUST_UNLISTED_TASKS": "1"}
    os.environ["DOCKER_HOST"] = toys.host
    yield toys
    for plan in project.glob("runs/*/jobs/*/plan.json"):
        EXECUTOR.end(plan.parent, process_jobs.CANCELLED_CODE)


@pytest.fixture
def make(project: Path, clean_env: dict[str, str], docker: Daemon) -> Make:
    """Run Make in the project's copy and in the daemon's network."""
    return functools.partial(make_in(project, clean_env), prefix=docker.inside)


@pytest.fixture(scope="module")
def endpoint(toys: Daemon) -> Iterator[str]:
    """The toy model beside the daemon, as containers reach it."""
    command = [*toys.inside, sys.executable, ROOT / "tests/cluster/image/toy_model.py", "--port=9000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as model:
        assert model.stdout
        assert model.stdout.readline()
        yield "http://172.17.0.1:9000/v1/chat/completions"
        model.terminate()


@pytest.fixture
def configure(project: Path, endpoint: str, docker: Daemon) -> Configure:
    """Write configs/toy.yaml: tasks by name with the seconds between their questions, and a hosted or a served model. Gives CONFIG=toy."""

    def write(*seconds: float, served: str | None = None, samples: int = 3, mode: str = "sequential") -> str:
        if served is None:
            model: dict[str, Any] = {"target": {"api_endpoint": {"url": endpoint, "model_id": "toy"}}}
        else:
            (project / "checkpoint").mkdir(exist_ok=True)
            command = f"python3 /opt/toy/toy_model.py --port ${{deployment.port}} {served}"
            model = {"deployment": {"image": IMAGE, "checkpoint_path": str(project / "checkpoint"), "command": command}}
            model["deployment"] |= {"served_model_name": "toy", "port": 8000}
        params = {"limit_samples": samples}
        tasks = [
            {
                "name": TASKS[number % 2],
                "container": IMAGE,
                "endpoint_type": "chat",
                "nemo_evaluator_config": {"config": {"params": {**params, "extra": {"seconds": pause}}}},
            }
            for number, pause in enumerate(seconds)
        ]
        defaults = [{"execution": "docker"}, {"deployment": "none" if served is None else "generic"}, "_self_"]
        execution = {"mode": mode, "extra_docker_args": "--init"}  # with it, `docker stop` of the server takes no 10 s
        document = {"defaults": defaults, "execution": execution, **model, "evaluation": {"tasks": tasks}}
        (project / "configs/toy.yaml").write_text(json.dumps(document))
        return "CONFIG=toy"

    return write


@pytest.fixture
def begin(project: Path, clean_env: dict[str, str], docker: Daemon) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Make in a session of its own, as a terminal does: `os.killpg(begin("eval").pid, SIGINT)` is Ctrl-C."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str) -> subprocess.Popen[str]:
            command = [*docker.inside, "make", *arguments]
            made = subprocess.Popen(command, cwd=project, env=clean_env, stderr=subprocess.PIPE, text=True, start_new_session=True)
            stack.enter_context(made)
            stack.callback(lambda: made.poll() is None and os.killpg(made.pid, signal.SIGKILL))
            return made

        yield run


def jobs_of(project: Path) -> Path:
    """The jobs folder of the newest run, as soon as its plan is written."""
    return until(lambda: max(project.glob("runs/*/jobs/*/plan.json"), default=None)).parent


def asked(jobs: Path, task: str) -> int:
    """How many answers a toy task has."""
    path = jobs / task / "artifacts/answers.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def states(project: Path) -> list[str]:
    """The states of the newest run, by status.json."""
    (path,) = project.glob("runs/*/status.json")
    return [job["state"] for job in json.loads(path.read_text())["jobs"]]


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_each_task_has_a_server_and_fails_at_once_when_that_ends_first(
    make: Make, project: Path, docker: Daemon, configure: Configure, begin: Any
) -> None:
    process = begin("eval", configure(0, LONG, served="--wrong-every 3", samples=12))
    jobs = jobs_of(project)
    until(lambda: asked(jobs, "toy.differences.1"), 60)
    docker.docker("kill", next(name for name in docker.containers() if name.startswith("server-")))
    _, told = process.communicate(timeout=30)
    assert "the model server ended while the task ran" in told
    (row,) = json.loads((jobs.parent.parent / "results.json").read_text())["rows"]
    assert (row["task"], row["n"], row["value"]) == ("toy.sums", 12, pytest.approx(2 / 3))
    assert states(project) == ["SUCCEEDED", "FAILED"]
    done = json.loads((jobs.parent.parent / "status.json").read_text())["jobs"][0]
    assert done["seconds"] > 0
    assert (done["requests_done"], done["requests_total"]) == (12, 12)
    assert re.search(r"toy\.sums .* \d+\.\d │", make("results").stdout), "seconds are in the table"
    assert docker.containers() == []
    assert left(jobs) == []
    assert "toy.differences" not in make("logs", "TASKS=toy.sums").stdout
    assert "the toy model listens" in make("logs", "WHICH=server").stdout


def test_tasks_side_by_side_tell_their_progress_and_are_cancelled(make: Make, project: Path, docker: Daemon, configure: Configure) -> None:
    make("batch", configure(0.05, LONG, samples=1000, mode="parallel"))
    jobs = jobs_of(project)
    until(lambda: job_folder.number_in(jobs / "toy.sums.0/artifacts/progress") and asked(jobs, "toy.differences.1"))
    assert re.search(r"RUNNING .*\d0/1000", make("status").stdout)
    assert make("cancel").returncode == 0
    assert states(project) == ["CANCELLED"] * 2
    assert docker.containers() == []


def test_ctrl_c_leaves_nothing(project: Path, docker: Daemon, configure: Configure, begin: Any) -> None:
    process = begin("eval", configure(LONG, LONG))
    jobs = jobs_of(project)
    until(lambda: asked(jobs, "toy.sums.0"))
    assert docker.containers(running=True)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert "stopped, nothing is left running" in told
    assert "Traceback" not in told
    assert docker.containers() == []
    assert left(jobs) == []
    assert states(project) == ["INTERRUPTED"] * 2


@pytest.mark.parametrize("stage", ["the server starts", "the second task runs"])
def test_cancelled_at_any_stage_nothing_is_left(make: Make, project: Path, docker: Daemon, configure: Configure, stage: str) -> None:
    served = "--startup-delay 600" if stage == "the server starts" else None
    batch = make("batch", configure(0, LONG, served=served))
    assert batch.returncode == 0, batch.stderr
    jobs = jobs_of(project)
    until(lambda: docker.containers(running=True) if served else asked(jobs, "toy.differences.1"))
    done = make("cancel")
    assert done.returncode == 0, done.stderr
    assert "nothing is left running" in done.stderr
    assert docker.containers() == []
    assert left(jobs) == []
    assert states(project) == ["CANCELLED" if served else "SUCCEEDED", "CANCELLED"]
    assert "nothing was running" in make("cancel").stderr


def test_of_tasks_that_are_cancelled_alone_the_others_go_on(make: Make, project: Path, docker: Daemon, configure: Configure) -> None:
    make("batch", configure(LONG, LONG, 0))
    jobs = jobs_of(project)
    until(lambda: asked(jobs, "toy.sums.0"))
    for task in ("toy.differences", "toy.sums.0"):  # one that waits, one that runs
        done = make("cancel", f"TASKS={task}")
        assert done.returncode == 0, done.stderr
    until(lambda: ended(jobs))
    assert "SUCCEEDED" in make("status").stdout
    assert states(project) == ["CANCELLED", "CANCELLED", "SUCCEEDED"]
    assert docker.containers() == []

    resumed = make("resume", "TASKS=toy.sums.0")
    assert "will run again" in resumed.stderr
    make("status")
    assert states(project) == ["INTERRUPTED", "CANCELLED", "SUCCEEDED"]


def test_the_end_of_make_eval_is_that_of_its_jobs(project: Path, docker: Daemon, configure: Configure, begin: Any) -> None:
    process = begin("eval", configure(LONG))
    jobs = jobs_of(project)
    until(lambda: asked(jobs, "toy.sums.0"))
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: ended(jobs))
    assert docker.containers() == []
    assert left(jobs) == []


def test_after_a_killed_supervisor_the_same_run_goes_on(make: Make, project: Path, docker: Daemon, configure: Configure) -> None:
    make("batch", configure(0, 0.3, samples=10))
    jobs = jobs_of(project)
    until(lambda: asked(jobs, "toy.differences.1"))
    kept = (jobs / "toy.sums.0/artifacts/results.yml").stat().st_mtime_ns
    os.kill(supervisor_pid(jobs), signal.SIGKILL)
    until(lambda: ended(jobs))
    make("status")
    assert states(project) == ["SUCCEEDED", "INTERRUPTED"]
    done = make("eval", "RUN=latest")
    assert done.returncode == 0, done.stderr
    assert "resuming what was interrupted: toy.differences" in done.stderr
    assert done.stdout.count("(10)") == 2
    assert (jobs / "toy.sums.0/artifacts/results.yml").stat().st_mtime_ns == kept
    assert docker.containers() == []
    assert left(jobs) == []


def test_without_gpus_one_line_says_so_and_nothing_is_submitted(
    make: Make, project: Path, configure: Configure, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with daemon(tmp_path_factory.mktemp("n"), gpus=False) as none:
        done = make("eval", configure(0, served=""), env={"DOCKER_HOST": none.host}, prefix=none.inside)
        assert done.returncode == 2
        (error,) = errors(done)
        assert "gets no GPU (could not select device driver" in error
        assert "install nvidia-container-toolkit" in error
        assert "Starting evaluation" not in done.stderr
        assert not list(project.glob("runs/*/submission.json"))
        assert none.docker("images", "--all", "--quiet") == ""
