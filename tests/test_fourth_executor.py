"""A fourth executor is one folder and one line of the registry; everything that Make offers then works with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import ROOT, Make
from endpoint import Endpoint
from local_jobs import until

pytestmark = pytest.mark.slow

CONFIG = """
defaults: [deployment: none, _self_]
execution: {type: detached}
target: {api_endpoint: {url: "???", model_id: m, api_key_name: null}}
evaluation: {tasks: [{name: opposites}, {name: capitals}]}
"""


@pytest.fixture
def with_fourth(project: Path, make: Make) -> Iterator[Make]:
    """The project's copy with the fourth executor in it."""
    shutil.copytree(ROOT / "tests/fourth_executor", project / "helpers/executors/detached")
    registry = project / "helpers/executors/registry.py"
    line = '    "slurm": "helpers.executors.slurm",\n'
    text = registry.read_text()
    assert text.count(line) == 1
    registry.write_text(text.replace(line, f'{line}    "detached": "helpers.executors.detached",\n'))
    subprocess.run([sys.executable, "scripts/write_schemas.py"], cwd=project, check=True)
    (project / "configs/mine.yaml").write_text(CONFIG)
    yield make
    for submission in project.glob("runs/*/submission.json"):
        make("cancel", f"RUN={submission.parent.name}")


def states(run: Path) -> list[str]:
    return [job["state"] for job in json.loads((run / "status.json").read_text())["jobs"]]


@pytest.mark.slow
def test_it_evaluates_and_its_run_is_looked_at(with_fourth: Make, project: Path) -> None:
    make = with_fourth
    with Endpoint(text="hot") as endpoint:
        asked = ("CONFIG=mine", "QUICK=2", f"SET=target.api_endpoint.url={endpoint.url}")
        planned = make("dry-run", *asked)
        assert "2 tasks, one after another, on this machine" in planned.stdout, planned.stderr
        done = make("eval", *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        run = next(path.parent for path in project.glob("runs/*/submission.json"))
        assert json.loads((run / "submission.json").read_text())["executor"] == "detached"
        assert states(run) == ["SUCCEEDED", "SUCCEEDED"]
        results = json.loads((run / "results.json").read_text())
        assert {row["task"] for row in results["rows"]} == {"opposites", "capitals"}
        requests = len(endpoint.paths)
        assert make("eval", f"RUN={run.name}").returncode == 0
        assert len(endpoint.paths) == requests, "what is done is not run again"
    of_run = f"RUN={run.name}"
    assert make("status", of_run).stdout.count("SUCCEEDED") == 2
    logs = make("logs", of_run, "TASKS=capitals").stdout
    assert "capitals | " in logs
    assert "opposites | " not in logs
    assert "capitals" in make("results", of_run).stdout
    refused = make("logs", of_run, "WHICH=server")
    assert "WHICH=server: a run on executor detached has client logs" in refused.stderr
    assert "no task has ended without results" in make("resume", of_run).stderr
    assert "nothing was running" in make("cancel", of_run).stderr


@pytest.mark.slow
def test_it_is_cancelled_and_resumed(with_fourth: Make, project: Path) -> None:
    make = with_fourth
    with Endpoint(text="hot", delay=5) as endpoint:  # long enough for status and cancel on a busy machine
        done = make("batch", "CONFIG=mine", "QUICK=3", f"SET=target.api_endpoint.url={endpoint.url}")
        assert done.returncode == 0, done.stderr
        run = next(path.parent for path in project.glob("runs/*/submission.json"))
        of_run = f"RUN={run.name}"
        until(lambda: endpoint.paths, 60)
        assert "RUNNING" in make("status", of_run).stdout
        cancelled = make("cancel", of_run)
        assert "the runner was stopped" in cancelled.stderr
        assert states(run) == ["CANCELLED", "CANCELLED"]
        resumed = make("resume", of_run, "TASKS=capitals")
        assert "✓ capitals: will run again" in resumed.stderr
        done = make("eval", of_run)
    assert "Error 4" in done.stderr, "the task that was not resumed has no results"
    assert states(run) == ["CANCELLED", "SUCCEEDED"]
    assert {row["task"] for row in json.loads((run / "results.json").read_text())["rows"]} == {"capitals"}


@pytest.mark.slow
def test_its_profile_is_taken_and_another_one_is_refused_by_name(with_fourth: Make, project: Path) -> None:
    make = with_fourth
    (project / "env.toml").write_text('[HERE]\nexecutor = "detached"\n[THERE]\nexecutor = "detach"\n')
    with Endpoint() as endpoint:
        asked = ("CONFIG=mine", f"SET=target.api_endpoint.url={endpoint.url}")
        assert make("dry-run", "PROFILE=HERE", *asked).returncode == 0
        refused = make("dry-run", "PROFILE=THERE", *asked)
    assert refused.returncode == 2
    assert "did you mean detached?" in refused.stderr
