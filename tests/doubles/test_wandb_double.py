"""The double of a W&B server against the real wandb SDK: a run, its summary, artifacts, and every refusal that other tests rely on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wandb_double import KEY, WandbDouble

pytestmark = pytest.mark.slow

RUN = """
import wandb
run = wandb.init(entity="my-team", project="nemotron", id="r1", resume="allow", config={"task": "mmlu"}, group="g", tags=["t"])
run.log({"accuracy": 0.5})
run.summary["n"] = 40
run.finish()
"""
LOG_ARTIFACT = """
import wandb, pathlib
pathlib.Path("weights.txt").write_text("w" * 10)
checkpoint = pathlib.Path("checkpoint").absolute()
checkpoint.write_text("on the cluster")
run = wandb.init(entity="my-team", project="nemotron", id="train")
made = wandb.Artifact("rl", type="model", metadata={"absolute_path": "/lustre/rl"})
made.add_file("weights.txt")
made.add_reference(checkpoint.as_uri(), name="checkpoint", checksum=False)
run.log_artifact(made, aliases=["best"]).wait()
run.finish()
"""
USE_ARTIFACT = """
import wandb
run = wandb.init(entity="my-team", project="nemotron", id="eval")
used = run.use_artifact("rl:best")
print(used.version, used.metadata, open(used.get_entry("weights.txt").download("down")).read())
run.finish()
"""


@pytest.fixture
def server() -> Iterator[WandbDouble]:
    with WandbDouble() as server:
        yield server


def sdk(server: WandbDouble, folder: Path, program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the real SDK, in a process of its own, against the double."""
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_CONSOLE": "off"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=home | environ, capture_output=True, text=True, timeout=90, check=False)


def test_a_run_is_logged_and_read_back_and_resumed(server: WandbDouble, tmp_path: Path) -> None:
    done = sdk(server, tmp_path, RUN)
    assert done.returncode == 0, done.stderr
    run = server.run("r1")
    assert (run.state, run.config["task"]["value"], run.summary["accuracy"], run.summary["n"]) == ("finished", "mmlu", 0.5, 40)
    assert [line["accuracy"] for line in run.history] == [0.5]
    assert "config.yaml" in run.files
    read = sdk(
        server, tmp_path, 'import wandb; r = wandb.Api().run("my-team/nemotron/r1"); print(r.state, r.summary["n"], r.config, r.url)'
    )
    assert read.stdout.split(maxsplit=2)[:2] == ["finished", "40"], read.stderr
    assert "'task': 'mmlu'" in read.stdout
    assert f"{server.url}/my-team/nemotron/runs/r1" in read.stdout
    assert sdk(server, tmp_path, RUN).returncode == 0
    assert len(server.runs) == 1
    assert len(run.history) == 2
    assert server.keys_seen() <= {KEY, None}
    assert server.unknown == []


def test_artifacts_are_logged_used_and_found_by_alias_and_version(server: WandbDouble, tmp_path: Path) -> None:
    done = sdk(server, tmp_path, LOG_ARTIFACT)
    assert done.returncode == 0, done.stderr
    used = sdk(server, tmp_path, USE_ARTIFACT)
    assert "v0 {'absolute_path': '/lustre/rl'} wwwwwwwwww" in used.stdout, used.stderr
    assert server.run("eval").used == ["artifact-0"]
    find = """
import wandb
api = wandb.Api()
for name in ("rl:best", "rl:latest", "rl:v0"):
    found = api.artifact(f"my-team/nemotron/{name}")
    print(found.version, found.type, sorted(found.aliases), [e.ref for e in found.manifest.entries.values() if e.ref])
print([a.version for a in api.artifacts("model", "my-team/nemotron/rl")])
print([c.name for c in api.artifact_type("model", "my-team/nemotron").collections()])
try:
    api.artifact("my-team/nemotron/rl:v7")
except wandb.errors.CommError as error:
    print("none:", error)
"""
    found = sdk(server, tmp_path, find)
    assert found.stdout.count(f"v0 model ['best', 'latest'] ['{(tmp_path / 'checkpoint').as_uri()}']") == 3, found.stdout + found.stderr
    assert "['v0']\n['rl']\nnone:" in found.stdout, found.stdout + found.stderr
    assert server.unknown == []


def test_an_artifact_put_by_a_test_is_found_by_the_sdk(server: WandbDouble, tmp_path: Path) -> None:
    for step in (1, 2):
        server.put_artifact("sft", ("best",), metadata={"absolute_path": f"/lustre/sft-{step}"}, references={"dir": "file:///lustre/sft/"})
    program = (
        'import wandb; a = wandb.Api().artifact("my-team/nemotron/sft:{}"); print(a.version, a.metadata, a.manifest.entries["dir"].ref)'
    )
    assert sdk(server, tmp_path, program.format("best")).stdout == "v1 {'absolute_path': '/lustre/sft-2'} file:///lustre/sft/\n"
    assert sdk(server, tmp_path, program.format("v0")).stdout == "v0 {'absolute_path': '/lustre/sft-1'} file:///lustre/sft/\n"


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (lambda server: server.expired.add(KEY), "401"),
        (lambda server: server.read_only.add("my-team/nemotron"), "permission denied"),
        (lambda server: server.refused.add("my-team/nemotron"), "permission denied"),
        (lambda server: server.entities.discard("my-team"), "entity my-team not found"),
    ],
)
def test_the_sdk_reports_each_refusal(server: WandbDouble, tmp_path: Path, trouble: object, told: str) -> None:
    assert callable(trouble)
    trouble(server)
    done = sdk(server, tmp_path, RUN)
    assert done.returncode != 0
    assert told in done.stderr
    assert server.runs == {}


def test_it_can_be_off_and_on_again(server: WandbDouble, tmp_path: Path) -> None:
    server.off()
    done = sdk(server, tmp_path, RUN.replace("group=", "settings=wandb.Settings(init_timeout=3), group="))
    assert done.returncode != 0
    server.on()
    assert sdk(server, tmp_path, RUN).returncode == 0
