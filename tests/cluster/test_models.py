"""Models named by artifact on the test cluster: their manifests and checkpoints are there, and nothing of them comes to this machine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.pipeline import Pipeline, exit_code, said
from cluster.testbed import Bed
from manifests import put


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A config whose model is an artifact out of a folder on the cluster: sft v1 and rl v1 are there, the checkpoint of rl v2 is not."""
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("models"))
    root = cluster.name / "jobs/artifacts"  # seen by its machines, whose /tmp is another
    shutil.rmtree(root, ignore_errors=True)
    for name, version, path in (
        ("sft", "v1", made.checkpoint()),
        ("rl", "v1", made.checkpoint()),
        ("rl", "v2", Path("/lustre/gone")),
    ):
        put(root, f"ModelArtifact-{name}", version, str(path), latest=version == "v1")
    where = {"model": "rl:latest", "artifacts": {"backend": "file", "root": str(root)}}
    made.config = made.write_config("models", run=where, deployment={"checkpoint_path": "${art:model,path}"})
    yield made
    made.scancel()


def test_a_model_is_looked_up_on_the_cluster_over_the_one_connection_and_evaluated_there(pipeline: Pipeline) -> None:
    pipeline.disconnect()
    before = pipeline.connections()
    done = pipeline.make("eval", "TASKS=toy.sums")
    assert done.returncode == 0, said(done)
    assert pipeline.connections() - before == 1
    model = pipeline.document(pipeline.run, "model")["models"]["model"]
    assert (model["version"], model["path"]) == ("v1", str(pipeline.checkpoint()))
    assert model["found_in"].endswith(f" on {pipeline.bed.alias}") or f"@{pipeline.bed.alias}" in model["found_in"]
    results = pipeline.document(pipeline.run, "results")
    assert results["artifacts"]["model"]["digest"] == model["digest"]
    assert [row["value"] for row in results["rows"]] == [1.0]
    listed = pipeline.make("models", f"PROFILE={pipeline.profile}", f"CONFIG={pipeline.config}", "MATCH=rl")
    assert "rl    ModelArtifact-rl  v2 v1     latest = v1" in listed.stdout, said(listed)


def test_a_checkpoint_that_the_cluster_does_not_have_is_reported_before_anything_is_queued(pipeline: Pipeline) -> None:
    done = pipeline.make("eval", "MODEL=rl:v2")
    assert exit_code(done) == 1, said(done)
    assert re.search(r"^error: .*/lustre/gone ", done.stderr, re.MULTILINE), said(done)
    assert pipeline.jobs(pipeline.run) == []


def test_a_sweep_queues_as_many_jobs_as_its_cap_over_one_connection_and_compares_the_models(pipeline: Pipeline) -> None:
    pipeline.disconnect()
    before, known = pipeline.connections(), set(pipeline.runs)
    words = (f"PROFILE={pipeline.profile}", f"CONFIG={pipeline.config}", "MODELS=sft:v1 rl:latest")
    refused = pipeline.make("sweep", *words, "JOBS=1")
    assert "JOBS=2" in refused.stderr
    done = pipeline.make("sweep", *words, "JOBS=2")
    assert done.returncode == 0, said(done)
    assert pipeline.connections() - before == 1
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["sft:v1", "rl:latest"]
    assert done.stdout.count("1.000 [") == 4, done.stdout
    made = sorted(set(pipeline.runs) - known)
    assert len(made) == 2
    spans = sorted(_spans(pipeline, run) for run in made)
    assert spans[0][1] <= spans[1][0], "under the cap of two jobs the second model waits for the first"
    assert all(set(pipeline.per_task(run).values()) == {1} for run in made)


def test_a_sweep_that_was_killed_finds_its_jobs_again(pipeline: Pipeline) -> None:
    known = set(pipeline.runs)
    words = (f"PROFILE={pipeline.profile}", f"CONFIG={pipeline.config}", "MODELS=rl:v1 sft:latest", "TASKS=toy.sums")
    with pipeline.at_work("sweep", *words) as process:
        assert process.stdout
        for line in process.stdout:
            if " queued (" in line:
                break
    done = pipeline.make("sweep", *words)
    assert done.returncode == 0, said(done)
    assert "runs/sweeps/" in done.stderr
    made = set(pipeline.runs) - known
    assert len(made) == 2
    assert [pipeline.per_task(run) for run in made] == [{"toy.sums.0": 1}] * 2
    (sweep,) = [one for one in pipeline.project.glob("runs/sweeps/*/results.json") if "sft:latest" in one.read_text()]
    assert {one["run"] for one in json.loads(sweep.read_text())["models"]} == {run.name for run in made}


def _spans(pipeline: Pipeline, run: Path) -> tuple[str, str]:
    """When the first job of a run was queued and the last one ended, by Slurm."""
    ids = ",".join(job.id for job in pipeline.jobs(run))
    lines = pipeline.bed.slurm("sacct", "-X", "-P", "-n", "-j", ids, "-o", "submit,end").split()
    return min(line.split("|")[0] for line in lines), max(line.split("|")[1] for line in lines)
