"""Container images of whole runs on the test cluster, through Make: squashed before anything is submitted, once, and jobs pull nothing."""

from __future__ import annotations

import itertools
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import faults
from cluster.image_cases import push, registry
from cluster.pipeline import HELD, Pipeline, exit_code, said
from cluster.testbed import Bed, until


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.made(cluster, tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def _empty_queue(pipeline: Pipeline, idle: None) -> Iterator[None]:
    yield
    pipeline.scancel()


@dataclass
class Cache:
    """A remote_job_dir of a test's own, named by the profile SQUASH."""

    pipeline: Pipeline
    folder: Path

    @property
    def squashed(self) -> list[str]:
        """The names of the images in it."""
        return sorted(path.name for path in (self.folder / "containers").glob("*.sqsh"))

    def imports(self) -> list[list[str]]:
        """id, start and end of each import's job that has ended."""
        self.pipeline.scancel()
        listed = self.pipeline.bed.slurm("sacct", "-X", "-P", "-n", "-a", "-S", "now-1days", "-o", "jobidraw,start,end,jobname,workdir")
        return [line.split("|")[:3] for line in listed.splitlines() if f"{self.folder}/" in line and "evalmake.import-" in line]


@pytest.fixture
def cache(pipeline: Pipeline, cluster: Bed) -> Cache:
    folder = cluster.name / "jobs" / f"squash-{secrets.token_hex(4)}"
    folder.mkdir()
    pipeline.write_profile("SQUASH", remote_job_dir=str(folder))
    pipeline.profile = "SQUASH"
    return Cache(pipeline, folder)


def named(pipeline: Pipeline, run: Path) -> dict[str, Any]:
    """launcher.yaml of a run."""
    config: dict[str, Any] = yaml.safe_load((run / "launcher.yaml").read_text())
    return config


def use(pipeline: Pipeline, image: str, **values: Any) -> str:
    """A config whose deployment and tasks name this image."""
    document = yaml.safe_load((pipeline.bed.folder / "cluster-eval.yaml").read_text())
    task = {**document["evaluation"]["tasks"][0], "container": image}
    tasks = [{**task, "name": name} for name in ("toy.sums", "toy.differences")]
    return pipeline.write_config("by-reference", **{"deployment": {"image": image}, "evaluation": {"tasks": tasks}, **values})


def test_a_run_by_reference_imports_over_one_connection_and_the_next_starts_at_once(pipeline: Pipeline, cache: Cache, cluster: Bed) -> None:
    image = f"docker://{registry(cluster)}/evalmake/toy:25.11"
    config = use(pipeline, image)
    pipeline.disconnect()
    before = pipeline.connections()
    done = pipeline.make("eval", f"CONFIG={config}")
    assert done.returncode == 0, said(done)
    assert pipeline.connections() - before == 1
    first = pipeline.run
    (row,) = pipeline.document(first, "images")["images"]
    assert (row["reference"], row["state"], row["users"]) == (image, "imported", ["deployment", "task toy.sums", "task toy.differences"])
    assert cache.squashed == [Path(row["path"]).name]
    launched = named(pipeline, first)
    assert [launched["deployment"]["image"], *(task["container"] for task in launched["evaluation"]["tasks"])] == [row["path"]] * 3
    for entry in pipeline.document(first)["jobs"]:
        assert registry(cluster) not in (Path(entry["remote_dir"]) / "run.sub").read_text()
    assert [row["value"] for row in pipeline.document(first, "results")["rows"]] == [1.0] * 2
    assert len(cache.imports()) == 1

    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}")
    assert done.returncode == 0, said(done)
    (again,) = pipeline.document(pipeline.run, "images")["images"]
    assert (again["state"], again["path"]) == ("hit", row["path"])

    # The file of images is gone: it is told again from launcher.yaml, and nobody is asked.
    images, log = pipeline.run / "images.json", pipeline.project / "ssh.log"
    images.unlink()
    done = pipeline.make("batch", f"RUN={pipeline.run.name}", env={"BED_SSH_LOG": str(log)})
    assert done.returncode == 0, said(done)
    assert [row["path"] for row in json.loads(images.read_text())["images"]] == [row["path"]]
    assert not log.exists()


def test_images_that_cannot_be_squashed_are_pulled_by_each_job_in_a_form_that_enroot_3_reads_too(
    pipeline: Pipeline, cache: Cache, cluster: Bed
) -> None:
    config = use(pipeline, f"{registry(cluster)}/evalmake/toy:25.11")
    enroot = cluster.folder / "bin/enroot"
    away = enroot.rename(enroot.with_name("enroot.away"))
    try:
        done = pipeline.make("batch", f"CONFIG={config}", "TASKS=toy.sums", f"SET={HELD}")
    finally:
        away.rename(enroot)
    assert done.returncode == 0, said(done)
    run = pipeline.run
    assert named(pipeline, run)["deployment"]["image"] == f"{registry(cluster)}#evalmake/toy:25.11"
    pipeline.release(run)
    done = pipeline.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert [row["value"] for row in pipeline.document(run, "results")["rows"]] == [1.0]


def test_a_container_that_does_not_start_is_explained_by_the_line_that_says_why(
    pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path
) -> None:
    """After it come lines of spank, and the last one only says that a child failed."""
    broken = cluster.name / "jobs" / f"broken-{secrets.token_hex(4)}.sqsh"
    broken.write_bytes(b"hsqs, but nothing more")
    done = pipeline.make("eval", f"CONFIG={use(pipeline, str(broken))}", "TASKS=toy.sums")
    assert exit_code(done) == 4
    (row,) = pipeline.document(pipeline.run, "status")["jobs"]
    assert row["state"] == "FAILED"
    assert "the container image was not found or cannot be read" in row["reason"]
    assert any(f"[ERROR] Invalid image format: {broken}" in line for line in row["errors"])
    done = pipeline.make("why", f"RUN={pipeline.run.name}")
    assert done.returncode == 0, said(done)
    assert f"[ERROR] Invalid image format: {broken}" in done.stdout
    assert "check deployment.image" in done.stdout


def test_every_image_that_a_run_can_use_is_squashed(pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path) -> None:
    images = {name: push(cluster, tmp_path, f"evalmake/{name}:1", secrets.token_hex(4)) for name in ("model", "judge", "proxy", "exporter")}
    judge = {"type": "generic", "image": images["judge"], "port": 8001, "served_model_name": "judge", "command": "sleep 1", "num_nodes": 1}
    judge["endpoints"] = {"chat": "/v1/chat/completions", "health": "/health"}
    config = use(
        pipeline,
        images["model"],
        execution={
            "num_nodes": 1,
            "proxy": {"image": images["proxy"]},
            "auto_export": {"destinations": ["local"], "export_image": images["exporter"]},
        },
        auxiliary_deployments={"judge": {**judge, "num_instances": 1}},
    )
    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}")
    assert done.returncode == 0, said(done)
    rows = {row["reference"]: row for row in pipeline.document(pipeline.run, "images")["images"]}
    assert set(rows) == {images["model"], images["judge"], images["exporter"]}, "one instance of each needs no proxy"
    launched = named(pipeline, pipeline.run)
    assert launched["auxiliary_deployments"]["judge"]["image"] == rows[images["judge"]]["path"]
    assert launched["execution"]["auto_export"]["export_image"] == rows[images["exporter"]]["path"]
    pipeline.scancel()

    config = use(pipeline, images["model"], execution={"num_nodes": 2, "num_instances": 2, "proxy": {"image": images["proxy"]}})
    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}")
    assert done.returncode == 0, said(done)
    rows = {row["reference"]: row for row in pipeline.document(pipeline.run, "images")["images"]}
    assert {reference: row["state"] for reference, row in rows.items()} == {images["model"]: "hit", images["proxy"]: "imported"}
    for entry in pipeline.document(pipeline.run)["jobs"]:
        assert registry(cluster) not in (Path(entry["remote_dir"]) / "run.sub").read_text()


def test_imports_says_how_many_are_at_work_at_a_time(pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path) -> None:
    images = [push(cluster, tmp_path, f"evalmake/many{index}:1", secrets.token_hex(4)) for index in range(3)]
    document = yaml.safe_load((cluster.folder / "cluster-eval.yaml").read_text())
    tasks = [{**document["evaluation"]["tasks"][0], "name": "toy.sums", "container": image} for image in images]
    config = pipeline.write_config("many", evaluation={"tasks": tasks})
    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}", "IMPORTS=1")
    assert done.returncode == 0, said(done)
    jobs = until(lambda: sorted(cache.imports(), key=lambda job: job[1]) if len(cache.imports()) == 3 else [], 20)
    assert all(before[2] <= after[1] for before, after in itertools.pairwise(jobs))


def test_a_failed_import_stops_the_run_before_anything_is_submitted_and_the_same_command_continues(
    pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path
) -> None:
    config = use(pipeline, push(cluster, tmp_path, "evalmake/failing:1", secrets.token_hex(4)))
    with faults.enroot_is(cluster, "squash", "fail"):
        done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}")
    assert exit_code(done) == 1
    assert "failed at squash" in said(done)
    run = pipeline.run
    assert not (run / "images.json").exists()
    assert not (run / "submission.json").exists()
    assert pipeline.jobs(run) == []
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert pipeline.document(run, "images")["images"][0]["state"] == "imported"
    assert len(pipeline.jobs(run)) == 2


def test_a_dry_run_shows_the_plan_and_contacts_nothing_unless_it_is_to_ask(
    pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path
) -> None:
    image = push(cluster, tmp_path, "evalmake/planned:1", secrets.token_hex(4))
    config, log = use(pipeline, image), tmp_path / "ssh.log"
    env = {"BED_SSH_LOG": str(log)}
    done = pipeline.make("dry-run", f"CONFIG={config}", env=env)
    assert done.returncode == 0, said(done)
    assert f"{cache.folder}/containers" in said(done)
    assert not log.exists()
    done = pipeline.make("dry-run", f"CONFIG={config}", "REMOTE=1", env=env)
    assert done.returncode == 0, said(done)
    assert "will be imported" in said(done)
    assert list(cache.folder.iterdir()) == [], "asking changes nothing"
    assert pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}").returncode == 0
    done = pipeline.make("dry-run", f"CONFIG={config}", "REMOTE=1", env=env)
    assert f"hit: {cache.folder}/containers/{cache.squashed[0]}" in " ".join(said(done).split())


def test_force_squash_imports_again_for_a_run(pipeline: Pipeline, cache: Cache, cluster: Bed, tmp_path: Path) -> None:
    config = use(pipeline, push(cluster, tmp_path, "evalmake/forced:1", secrets.token_hex(4)))
    assert pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}").returncode == 0
    (kept,) = cache.squashed
    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}", "FORCE_SQUASH=1")
    assert done.returncode == 0, said(done)
    (row,) = pipeline.document(pipeline.run, "images")["images"]
    assert (row["state"], Path(row["path"]).name) == ("imported", kept)
    assert len(cache.squashed) == 2
    assert json.loads((cache.folder / "containers" / kept).with_suffix(".json").read_text())["job"] == row["job"]

    # Runs that have not ended may have either file mounted.
    done = pipeline.make("clean-images", "PROFILE=SQUASH", "YES=1")
    assert done.returncode == 0, said(done)
    assert len(cache.squashed) == 2
    for run in pipeline.runs:
        shutil.rmtree(run)
    done = pipeline.make("clean-images", "PROFILE=SQUASH")
    assert exit_code(done) == 2
    assert len(cache.squashed) == 2
    done = pipeline.make("clean-images", "PROFILE=SQUASH", "YES=1")
    assert done.returncode == 0, said(done)
    assert cache.squashed == []
