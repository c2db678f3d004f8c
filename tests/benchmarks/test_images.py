"""What squashing images costs on a test cluster of four nodes: several at once beside one after another, and a run that finds them all."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster import faults
from cluster.image_cases import far_registry, push
from cluster.pipeline import HELD, Pipeline, said
from cluster.testbed import Bed

IMAGES, DOWNLOAD_SECONDS, FAR_SECONDS, TIMES = 4, 8, 0.3, 5
AT_ONCE_LIMIT, HITS_LIMIT_SECONDS = 0.4, 1.0


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The project, on a cluster of its own: the others' has two nodes."""
    folder = tmp_path_factory.mktemp("four")
    bed = Bed(folder / "bed", {"NODES": str(IMAGES), "HOST_ALIAS": "evalmake-four"})
    bed.folder.mkdir()
    bed.up()
    yield Pipeline.made(bed, folder)
    bed.down(purge=True)


def config_of(pipeline: Pipeline, images: list[str]) -> str:
    """A config with one task per image; its name."""
    entry = yaml.safe_load((pipeline.bed.folder / "cluster-eval.yaml").read_text())["evaluation"]["tasks"][0]
    tasks = [{**entry, "name": "toy.sums", "container": image} for image in images]
    return pipeline.write_config(f"images-{secrets.token_hex(3)}", evaluation={"tasks": tasks})


def batch(pipeline: Pipeline, config: str, *words: str) -> tuple[float, list[str], int]:
    """Submit a run of it, its jobs held: seconds, the states of its images, and how many commands went over ssh."""
    log = pipeline.project / "ssh.log"
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    done = pipeline.make("batch", f"CONFIG={config}", f"SET={HELD}", *words, env={"BED_SSH_LOG": str(log)})
    seconds = time.perf_counter() - began
    assert done.returncode == 0, said(done)
    states = [row["state"] for row in pipeline.document(pipeline.run, "images")["images"]]
    commands = log.read_text().count("bash -s")
    pipeline.scancel()
    return seconds, states, commands


def test_four_images_on_four_free_nodes_take_little_more_than_one(pipeline: Pipeline, tmp_path: Path) -> None:
    """What is timed is the chain around enroot: each import waits 8 s for its download, which takes no processor."""
    seconds = []
    with faults.enroot_is(pipeline.bed, "download", str(DOWNLOAD_SECONDS)):
        for at_once in (1, IMAGES):
            images = [push(pipeline.bed, tmp_path, f"evalmake/bench{at_once}{index}:1", secrets.token_hex(4)) for index in range(IMAGES)]
            took, states, _ = batch(pipeline, config_of(pipeline, images), f"IMPORTS={at_once}")
            assert sorted(states) == ["imported"] * IMAGES + ["left"]  # the deployment's is a path already
            seconds.append(took)
    ratio = seconds[1] / seconds[0]
    print(f"{IMAGES} images: {seconds[0]:.1f} s one after another, {seconds[1]:.1f} s all at once: {ratio:.2f}")
    assert ratio <= AT_ONCE_LIMIT


def test_finding_all_of_them_is_one_command_and_a_second_at_most(pipeline: Pipeline, tmp_path: Path) -> None:
    images = [push(pipeline.bed, tmp_path, f"evalmake/far{index}:1", secrets.token_hex(4)) for index in range(IMAGES)]
    with far_registry(pipeline.bed, FAR_SECONDS) as address:
        far = config_of(pipeline, [f"{address}/{image.partition('/')[2]}" for image in images])
        batch(pipeline, far)
        paths = [row["path"] for row in pipeline.document(pipeline.run, "images")["images"]]
        near = config_of(pipeline, [path for path in paths if "far" in path])
        found, named = [], []
        for _ in range(TIMES):
            seconds, states, commands = batch(pipeline, far)
            assert sorted(states) == ["hit"] * IMAGES + ["left"]
            found.append(seconds)
            seconds, states, without = batch(pipeline, near)
            assert set(states) == {"left"}
            assert commands == without + 1
            named.append(seconds)
    more = statistics.median(found) - statistics.median(named)
    ratio = statistics.median(found) / statistics.median(named)
    print(f"{IMAGES} images found, the registry {FAR_SECONDS} s away: {more:.2f} s more than .sqsh files by name ({ratio:.2f} times)")
    assert more <= HITS_LIMIT_SECONDS


def test_a_first_run_with_imports_logs_in_once(pipeline: Pipeline, tmp_path: Path) -> None:
    images = [push(pipeline.bed, tmp_path, f"evalmake/cold{index}:1", secrets.token_hex(4)) for index in range(2)]
    pipeline.disconnect()
    before = pipeline.connections()
    batch(pipeline, config_of(pipeline, images))
    logins = pipeline.connections() - before
    print(f"logins of a run with two imports: {logins}")
    assert logins == 1
