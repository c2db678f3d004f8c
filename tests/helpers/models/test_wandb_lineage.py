"""helpers/models/wandb_lineage.py with the real SDK, against a double of a server: a run has the model as input, the results as output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkout import ROOT
from helpers.common import files
from helpers.models import wandb_lineage
from wandb_double import Artifact, WandbDouble

pytestmark = pytest.mark.slow

# In a process of its own, as the exporter is: what the SDK keeps of a run does not reach the next test.
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import wandb
from helpers.models import wandb_lineage as artifact_lineage
from helpers.common import command_line
with command_line.errors_as_exit_codes():
    with wandb.init(entity="my-team", project="nemotron", id="eval", resume="allow") as run:
        artifact_lineage.declare(run, json.loads(sys.argv[2]), json.loads(sys.argv[3]))
"""


@pytest.fixture
def server() -> Iterator[WandbDouble]:
    with WandbDouble() as server:
        server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/lustre/rl/0"})
        server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/lustre/rl/1"})
        yield server


def documents(version: str = "v0", backend: str = "wandb", value: float = 0.5) -> tuple[dict[str, Any], dict[str, Any]]:
    """model.json and results.json of a run that evaluated this version."""
    name = "my-team/nemotron/ModelArtifact-rl" if backend == "wandb" else "ModelArtifact-rl"
    model = {"reference": "rl:latest", "backend": backend, "found_in": "x", "name": name, "version": version, "digest": "d"}
    model |= {"type": "model", "path": "/lustre/rl", "metadata": {}}
    score = {"task": "mmlu", "index": 0, "part": None, "metric": "accuracy", "score": "micro", "value": value, "stderr": 0.1, "n": 40}
    results = {"model": "rl-latest", "rows": [score], "tasks": []}
    results["artifacts"] = {"model": {key: model[key] for key in ("reference", "backend", "name", "version", "digest")}}
    return {"models": {"model": model}}, results


def declare(
    server: WandbDouble, folder: Path, model: dict[str, Any], results: dict[str, Any], **environ: str
) -> subprocess.CompletedProcess[str]:
    env = {**environ, "HOME": str(folder), "PATH": os.environ["PATH"], "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key}
    command = [sys.executable, "-c", PROGRAM, str(ROOT), json.dumps(model), json.dumps(results)]
    return subprocess.run(command, cwd=folder, env=env | {"WANDB_CONSOLE": "off"}, capture_output=True, text=True, timeout=120, check=False)


def results_in(server: WandbDouble) -> list[Artifact]:
    return [one for one in server.artifacts.values() if one.type == "evaluation"]


def test_the_graph_from_model_to_evaluation_to_benchmark_results(server: WandbDouble, tmp_path: Path) -> None:
    model, results = documents("v0")
    done = declare(server, tmp_path, model, results)
    assert done.returncode == 0, done.stderr
    run = server.run("eval")
    (used,) = (server.artifacts[one] for one in run.used)
    assert (used.collection, used.index) == ("ModelArtifact-rl", 0), "the version that was evaluated, not the latest"
    (made,) = results_in(server)
    assert (made.collection, made.run, made.index) == ("BenchmarkResults-rl", "eval", 0)
    metadata = json.loads(made.metadata or "{}")
    assert metadata["scores"] == {"mmlu/accuracy/micro": 0.5}
    assert metadata["artifacts"]["model"]["version"] == "v0"
    assert run.config["artifacts"]["value"]["model"]["digest"] == "d"
    (content,) = (content for content in server.stored.values() if b"mmlu" in content)
    assert json.loads(content) == files.seal_json(results)


def test_only_other_results_make_a_new_version(server: WandbDouble, tmp_path: Path) -> None:
    for value, versions in ((0.5, 1), (0.5, 1), (0.6, 2)):
        done = declare(server, tmp_path, *documents(value=value))
        assert done.returncode == 0, done.stderr
        assert len(results_in(server)) == versions
    assert len(set(server.run("eval").used)) == 1


def test_a_model_from_manifests_is_only_in_the_config_of_the_run(server: WandbDouble, tmp_path: Path) -> None:
    done = declare(server, tmp_path, *documents("v2", "file"))
    assert done.returncode == 0, done.stderr
    assert server.run("eval").used == []
    assert server.run("eval").config["artifacts"]["value"]["model"]["version"] == "v2"
    assert [one.collection for one in results_in(server)] == ["BenchmarkResults-rl"]


def test_an_offline_run_declares_only_what_needs_no_server(server: WandbDouble, tmp_path: Path) -> None:
    done = declare(server, tmp_path, *documents(), WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert server.calls == []
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-eval.wandb")
    assert b"BenchmarkResults-rl" in kept.read_bytes()


def test_the_error_for_a_deleted_model_names_it(server: WandbDouble, tmp_path: Path) -> None:
    done = declare(server, tmp_path, *documents("v9"))
    assert done.returncode == 1
    assert "error: my-team/nemotron/ModelArtifact-rl:v9 was evaluated, but W&B" in done.stderr
    assert results_in(server) == []


def test_results_without_a_model_artifact_are_named_after_the_served_model() -> None:
    _, results = documents()
    del results["artifacts"]
    assert wandb_lineage.name_of(results) == "BenchmarkResults-rl-latest"
    assert wandb_lineage.name_of({**results, "model": "org/my model"}) == "BenchmarkResults-org-my-model"
    assert wandb_lineage.name_of({**results, "model": None}) == "BenchmarkResults-model"
