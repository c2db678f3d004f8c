"""Finished evaluations on this machine: the numbers, the stock launcher's view of them, odd folders, terminals, and Docker."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkout import Make, copy_project
from helpers.executors.process import jobs as process_jobs
from local_jobs import left, served_by, states, until
from test_faults_local import Start, begin, configure, jobs_of, run_folder  # noqa: F401  begin is a fixture

pytestmark = pytest.mark.slow


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "results.json").read_text())["rows"]
    return rows


def test_scores_are_those_of_the_predictions_and_the_same_model_gives_them_again(
    make: Make, project: Path, clean_env: dict[str, str]
) -> None:
    for _ in range(2):
        done = make("eval", "QUICK=4", "TASKS=opposites capitals")
        assert done.returncode == 0, done.stderr
    first, second = sorted(project.glob("runs/*Z-*"))
    assert rows_of(first) == rows_of(second)
    for row in rows_of(first):
        lines = (first / "jobs" / f"{row['task']}.{row['index']}" / "artifacts/predictions.jsonl").read_text().splitlines()
        right = [bool(json.loads(line)["scores"]["correct"]) for line in lines]
        mean = sum(right) / len(right)
        assert row["n"] == len(right) == 4
        assert row["value"] == pytest.approx(mean)
        assert row["stderr"] == pytest.approx(math.sqrt(mean * (1 - mean) / 4))
    the_stock_launcher_reads(first, project, clean_env)


def the_stock_launcher_reads(run: Path, project: Path, env: dict[str, str]) -> None:
    """The real CLI on a finished run: status, info, ls runs, export, kill and resume."""
    invocation = json.loads((run / "submission.json").read_text())["invocation_id"]

    def stock(*arguments: str) -> str:
        command = [sys.executable, "-m", "nemo_evaluator_launcher.cli.main", *arguments]
        env_off = {**env, "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0"}
        done = subprocess.run(command, cwd=project, env=env_off, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    seen = stock("status", invocation)
    assert seen.lower().count("success") == 2, seen
    about = stock("info", invocation)
    assert invocation in about
    assert "opposites" in about
    assert invocation in stock("ls", "runs")
    for form in ("json", "csv"):
        said = stock("export", invocation, "--dest", "local", "--format", form, "--output-dir", str(project / "out"))
        exported = list((project / "out").rglob(f"processed_results.{form}"))
        assert exported, said
        assert "accuracy" in exported[0].read_text()
    stock("kill", invocation)
    assert stock("status", invocation).lower().count("success") == 2, "nothing that ended is called killed"
    stock("resume", invocation)
    until(lambda: not process_jobs.is_supervised(run / "jobs"), 60)
    assert states(run / "jobs") == ["SUCCEEDED", "SUCCEEDED"]
    assert left(run / "jobs") == []


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The project's copy, in a folder with an awkward name for the tests that ask for it."""
    copy = copy_project(tmp_path / (getattr(request, "param", "project")))
    (copy / ".venv").symlink_to(Path(__file__).resolve().parent.parent / ".venv")
    return copy


@pytest.mark.parametrize("project", ['it\'s a "project" of ours; $(touch x) & more'], indirect=True)
def test_it_works_in_a_folder_with_spaces_and_quotes_in_its_name(make: Make, project: Path) -> None:
    done = make("eval", "QUICK=1", "TASKS=opposites")
    assert done.returncode == 0, done.stderr
    assert "(1)" in done.stdout
    assert not (project / "x").exists()
    assert "SUCCEEDED" in make("status").stdout


def test_an_owner_that_ends_ends_the_jobs_that_were_submitted_for_it(make: Make, project: Path, clean_env: dict[str, str]) -> None:
    """What `make eval` relies on between its steps, and when Make itself is killed."""
    configure(project, served_by("--delay", "5"))
    submitted = make("dry-run", "CONFIG=double")
    assert submitted.returncode == 0, submitted.stderr
    run = run_folder(project)
    request = json.loads((run / "request.json").read_text())
    assert request
    names = ["scripts/submit_eval.py", f"--config={run}/config.yaml", f"--launcher={run}/hand.yaml"]
    with subprocess.Popen(["sleep", "600"]) as owner:
        for more in (["--prepare"], [f"--out={run}/../hand.json", f"--owner={owner.pid}"]):
            subprocess.run([".venv/bin/python", *names, *more], cwd=project, env=clean_env, check=True, capture_output=True, timeout=60)
        jobs = jobs_of(project)
        until((jobs / "opposites.0/logs/stage.running").exists)
        owner.kill()
    until(lambda: not process_jobs.is_supervised(jobs))
    assert left(jobs) == []
    assert set(states(jobs)) == {"INTERRUPTED"}


@pytest.mark.parametrize("client", [True, False])
def test_docker_that_does_not_answer_is_reported_at_once_and_nothing_is_submitted(
    make: Make, project: Path, tmp_path: Path, client: bool
) -> None:
    (project / "env.toml").write_text('[d]\nexecutor = "docker"\n')
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for tool in Path(folder).glob("*") if Path(folder).is_dir() else []:
            if tool.name != "docker" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    if client:  # a double of a client without a daemon, so that the test does not depend on this machine's
        (tools / "docker").write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2\nexit 1\n")
        (tools / "docker").chmod(0o755)
    document = {
        "defaults": [{"execution": "local"}, {"deployment": "none"}, "_self_"],
        "execution": {"output_dir": str(tmp_path / "out")},
        "target": {"api_endpoint": {"url": "http://x/v1/chat/completions", "model_id": "m"}},
        "evaluation": {"tasks": [{"name": "lm-evaluation-harness.ifeval"}]},
    }
    (project / "configs/mine.yaml").write_text(json.dumps(document))
    began = time.monotonic()
    done = make("eval", "PROFILE=d", "CONFIG=mine", env={"PATH": str(tools)})
    assert done.returncode == 2
    assert "Error 3" in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert ("daemon" if client else "docker") in errors[0]
    assert time.monotonic() - began < 30
    assert not list(project.glob("runs/*/submission.json"))


def test_in_a_terminal_bars_move_and_the_last_picture_stays(make: Make, project: Path, clean_env: dict[str, str]) -> None:
    config = configure(project, served_by("--delay", "0.3"))
    pid, screen = pty.fork()
    if pid == 0:  # the child: its terminal is the pty
        os.chdir(project)
        os.execvpe(
            "make",
            ["make", "eval", config, "QUICK=8", "TASKS=opposites"],
            {**clean_env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        )
    drawn = b""
    while select.select([screen], [], [], 60)[0]:
        try:
            drawn += os.read(screen, 65536)
        except OSError:  # the child closed its terminal
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    text = drawn.decode("utf-8", "replace")
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text)
    assert re.search(r"opposites.*RUNNING", plain)
    last = [line for line in plain.replace("\r", "\n").splitlines() if "SUCCEEDED" in line][-1]
    assert "8/8 requests" in last
    assert "━" in last
    assert text.count("\x1b[?25h") >= 1, "the cursor is shown again"


def test_logs_in_a_terminal_stream_behind_the_task_s_name(begin: Start, project: Path) -> None:  # noqa: F811  the fixture
    process = begin("eval", configure(project, served_by()), "QUICK=1", "TASKS=opposites", "VERBOSE=1")
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0
    assert re.search(r"^opposites \| .*Evaluation complete", told, re.MULTILINE)
    assert not [line for line in told.splitlines() if "core_evals.starter.run" in line and not line.startswith("opposites | ")]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
