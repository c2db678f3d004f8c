"""`make sweep` on this machine: one run per model, one table; interrupted, it continues; bad input is refused before anything runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from checkout import Make
from helpers.common import files
from local_jobs import left, served_by, states, until
from manifests import put
from test_faults_local import Start, begin  # noqa: F401  begin is a fixture
from test_models import WEIGHTS, by_artifact, errors_in, in_files

pytestmark = pytest.mark.slow

SAME = ("QUICK=1", "TASKS=opposites")


@pytest.fixture
def root(tmp_path: Path, project: Path) -> Path:
    folder = tmp_path / "artifacts"
    for name in ("sft", "rl"):
        put(folder, f"ModelArtifact-{name}", "v1", str(WEIGHTS))
    in_files(project, folder)
    return folder


def runs(project: Path) -> list[Path]:
    return sorted(project.glob("runs/*Z-*"))


def sweeps(project: Path) -> list[Path]:
    return sorted(project.glob("runs/sweeps/*Z-*"))


def results_of(project: Path) -> list[dict[str, Any]]:
    (folder,) = sweeps(project)
    models: list[dict[str, Any]] = files.read_json(folder / "results.json", "sweep_results")["models"]
    return models


def test_two_models_are_evaluated_and_compared_in_one_table(make: Make, project: Path, root: Path) -> None:
    done = make("sweep", by_artifact(project), "QUICK=2", "TASKS=opposites capitals", "MODELS=sft:v1 rl:latest")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 models"
    assert lines[1].split() == ["model", "opposites", "accuracy", "capitals", "accuracy"]
    assert [line.split()[0] for line in lines[2:4]] == ["sft:v1", "rl:latest"]
    assert lines[3].startswith("rl:latest (v1)")
    assert "(2)" in lines[2], "each cell has the value, its error and the number of samples"
    assert len(lines) == 4, "stdout is the table, and no more"
    found = results_of(project)
    assert [(one["model"], one["version"]) for one in found] == [("sft:v1", "v1"), ("rl:latest", "v1")]
    assert found[0]["scores"][0]["value"] == found[1]["scores"][0]["value"], "the same weights"
    assert {json.loads((run / "request.json").read_text())["model"] for run in runs(project)} == {"sft:v1", "rl:latest"}
    again = make("sweep", by_artifact(project), "QUICK=2", "TASKS=opposites capitals", "MODELS=sft:v1 rl:latest", "JOBS=1", "-n")
    assert again.returncode == 0
    assert len(sweeps(project)) == 1, "make -n runs nothing"
    assert root.is_dir()


def test_interrupted_the_same_command_continues_with_the_same_runs_and_versions(
    make: Make,
    project: Path,
    root: Path,
    begin: Start,  # noqa: F811
) -> None:
    config = by_artifact(project, command=served_by("--delay", "3"), served_model_name="m")
    command = ("sweep", config, "QUICK=4", "TASKS=opposites", "MODELS=sft:v1 rl:latest")
    started = begin(*command)
    jobs = until(lambda: next(project.glob("runs/*/jobs/*/logs/stage.running"), None), 60).parents[2]
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert "Error 130" in said, said
    until(lambda: left(jobs) == [])
    assert states(jobs) == ["INTERRUPTED"]
    before = {run.name: (run / "model.json").read_bytes() for run in runs(project)}
    assert len(before) == 2, "the model of each run was looked up before the first was evaluated"
    put(root, "ModelArtifact-rl", "v2", "/elsewhere")
    done = make(*command)
    assert done.returncode == 0, done.stderr
    assert "continuing runs/sweeps/" in done.stderr
    assert {run.name: (run / "model.json").read_bytes() for run in runs(project)} == before
    assert [one["version"] for one in results_of(project)] == ["v1", "v1"]
    other = make("sweep", config, *SAME, "MODELS=sft:v1")
    assert other.returncode == 0, other.stderr
    assert len(sweeps(project)) == 2, "another question is another sweep"


def test_a_killed_sweep_leaves_nothing_running_and_continues(make: Make, project: Path, root: Path, begin: Start) -> None:  # noqa: F811
    config = by_artifact(project, command=served_by("--delay", "3"), served_model_name="m")
    command = ("sweep", config, "QUICK=2", "TASKS=opposites", "MODELS=sft:v1 rl:latest")
    started = begin(*command)
    jobs = until(lambda: next(project.glob("runs/*/jobs/*/logs/stage.running"), None), 60).parents[2]
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate(timeout=60)
    until(lambda: left(jobs) == [], 60)
    done = make(*command)
    assert done.returncode == 0, done.stderr
    assert len(runs(project)) == 2
    assert len(results_of(project)) == 2
    assert root.is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "MODELS is missing: name models by artifact"),
        (("MODELS=sft:v1 sft:v1",), "sft:v1 is given twice"),
        (("MODELS=sft:v1", "MODEL=rl:v1"), "MODEL names a single model"),
        (("MODELS=a/b/c/d:v1",), "expected NAME:VERSION"),
        (("MODELS=sft:v1", "JOBS=none"), "JOBS=none: expected a number of jobs, 1 or more"),
        (("MODELS=sft:v1", "TASKS=nosuch"), "nosuch"),
        (("MODELS=sft:v1", "SET=deployment.checkpoint_path=/x"), "evaluates /x and ignores run.model"),
    ],
)
def test_what_no_run_could_take_is_reported_before_anything_is_made(
    make: Make, project: Path, root: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = make("sweep", by_artifact(project), *arguments)
    assert "Error 2" in done.stderr, done.stderr
    (line,) = errors_in(done.stderr)
    assert message in line
    assert runs(project) == sweeps(project) == []
    assert root.is_dir()


def test_a_model_that_is_not_there_stops_the_sweep_before_the_first_is_evaluated(make: Make, project: Path, root: Path) -> None:
    config = by_artifact(project, command=served_by(), served_model_name="m")
    done = make("sweep", config, *SAME, "MODELS=sft:v1 rl:v9")
    assert "Error 2" in done.stderr
    (line,) = errors_in(done.stderr)
    assert line.startswith("error: rl:v9: run.model=rl:v9:")
    assert "has no version v9; it has latest, v1" in line
    assert not list(project.glob("runs/*/submission.json"))
    put(root, "ModelArtifact-rl", "v9", str(WEIGHTS), latest=False)
    again = make("sweep", config, *SAME, "MODELS=sft:v1 rl:v9")
    assert again.returncode == 0, again.stderr
    assert len(runs(project)) == 2, "the same runs"


def test_a_model_whose_tasks_fail_is_in_the_table_and_the_same_command_runs_them_again(make: Make, project: Path, root: Path) -> None:
    command = f"case $CHECKPOINT_PATH in *bad) grep -q fixed $CHECKPOINT_PATH || exit 9;; esac; {served_by()}"
    (root.parent / "bad").touch()
    put(root, "ModelArtifact-sft", "v2", str(root.parent / "bad"))
    words = ("sweep", by_artifact(project, command=command, served_model_name="m"), *SAME, "MODELS=sft:v2 rl:v1")
    done = make(*words)
    assert "Error 4" in done.stderr, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:]] == [["sft:v2", "failed"], ["rl:v1", "0.000"]]
    assert "1 task failed: sft:v2 opposites (RUN=" in errors_in(done.stderr)[-1]
    good = {run: (run / "results.json").read_bytes() for run in runs(project)}
    (root.parent / "bad").write_text("fixed")
    again = make(*words)
    assert again.returncode == 0, again.stderr
    assert [line.split()[:2] for line in again.stdout.splitlines()[2:]] == [["sft:v2", "0.000"], ["rl:v1", "0.000"]]
    assert sum((run / "results.json").read_bytes() == was for run, was in good.items()) == 1, "only what failed was run again"
    assert len(results_of(project)) == 2
