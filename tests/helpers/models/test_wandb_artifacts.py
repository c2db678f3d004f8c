"""models/wandb_artifacts.py with the real SDK, against the double of a server: versions and aliases, missing artifacts, and no answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.common.errors import BadInput, Unreachable
from helpers.config import model_references
from helpers.config.model_references import Artifact
from helpers.models.wandb_artifacts import WandbStore
from wandb_double import WandbDouble

pytestmark = pytest.mark.slow


@pytest.fixture
def server(clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbDouble]:
    """A self-hosted server, named by WANDB_BASE_URL, with two models and a result of an evaluation."""
    with WandbDouble() as server:
        for name, value in (("BASE_URL", server.url), ("API_KEY", server.key), ("ENTITY", "my-team"), ("PROJECT", "nemotron")):
            monkeypatch.setenv(f"WANDB_{name}", value)
        server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/lustre/rl/0"})
        server.put_artifact("ModelArtifact-rl", ("best",), metadata={"absolute_path": "/lustre/rl/1", "arch": "nano"})
        server.put_artifact("ModelArtifact-rl", metadata={"absolute_path": "/lustre/rl/2"})
        server.put_artifact("ModelArtifact-sft", metadata={"absolute_path": "/lustre/sft"})
        yield server


def find(text: str, with_path: bool = True) -> Artifact:
    return WandbStore().find("run.model", model_references.parse("run.model", text, model_references.SHORT_NAMES), with_path)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("rl:latest", "v2"),
        ("rl:v0", "v0"),
        ("rl:1", "v1"),
        ("rl:best", "v1"),
        ("rl", "v2"),
        ("my-team/nemotron/ModelArtifact-rl:best", "v1"),
    ],
)
def test_a_version_or_an_alias_is_found_as_its_concrete_version(server: WandbDouble, text: str, version: str) -> None:
    found = find(text)
    assert (found.name, found.version, found.kind) == ("my-team/nemotron/ModelArtifact-rl", version, "model")
    assert found.path == f"/lustre/rl/{version[1:]}"
    assert found.digest == server.artifacts[f"artifact-{version[1:]}"].digest


def test_nothing_is_downloaded_and_nothing_changed(server: WandbDouble) -> None:
    find("rl:best")
    assert not [call.path for call in server.calls if call.path.startswith("/storage/")]
    assert not [name for name in server.operations() if "upsert" in name.lower() or "use" in name.lower()]
    assert server.keys_seen() == {server.key}
    assert server.unknown == []


@pytest.mark.parametrize(
    ("references", "path"),
    [
        ({"config.json": "file:///lustre/m/config.json", "w/1.bin": "file:///lustre/m/w/1.bin"}, "/lustre/m"),
        ({"checkpoint": "file:///lustre/megatron/iter_100"}, "/lustre/megatron/iter_100"),
        ({"model.gguf": "file:///lustre/model.gguf"}, "/lustre/model.gguf"),
    ],
)
def test_an_artifact_of_references_is_at_their_target(server: WandbDouble, references: dict[str, str], path: str) -> None:
    server.put_artifact("other", references=references)
    assert find("other:latest").path == path
    assert find("other:latest", with_path=False).path is None


@pytest.mark.parametrize(
    ("references", "why"),
    [
        ({}, "it has no file:// reference"),
        ({"a": "s3://bucket/a"}, "is not a path of a filesystem"),
        ({"a": "file:///one/a", "b": "file:///two/b"}, "not in one folder"),
    ],
)
def test_an_artifact_without_a_path_says_why(server: WandbDouble, references: dict[str, str], why: str) -> None:
    server.put_artifact("other", references=references)
    found = find("other:latest")
    assert found.path is None
    assert why in found.no_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rl:v7", r"run\.model=rl:v7: my-team/nemotron/ModelArtifact-rl has no version v7; it has .*latest, .*v2, v1, v0$"),
        ("rl:lates", r"has no version lates \(did you mean latest\?\)"),
        (
            "rll:latest",
            r"W&B project my-team/nemotron has no artifact rll \(did you mean ModelArtifact-rl\?\); it has ModelArtifact-rl, Mod",
        ),
        ("ModelArtifact-slt:v0", r"did you mean ModelArtifact-sft"),
        ("my-team/nemo/rl:v0", r"has no project my-team/nemo, or you may not see it; check \[wandb\]"),
    ],
)
def test_the_error_for_a_missing_artifact_lists_what_exists(server: WandbDouble, text: str, message: str) -> None:
    assert server.url
    with pytest.raises(BadInput, match=message):
        find(text)


def test_models_are_listed_and_results_of_evaluations_are_not(server: WandbDouble) -> None:
    server.put_artifact("scores", kind="evaluation")
    found = {one.name: one for one in WandbStore().listing("")}
    assert set(found) == {"my-team/nemotron/ModelArtifact-rl", "my-team/nemotron/ModelArtifact-sft"}
    assert found["my-team/nemotron/ModelArtifact-rl"].versions == ["v0", "v1", "v2"]
    assert found["my-team/nemotron/ModelArtifact-rl"].aliases == {"best": "v1", "latest": "v2"}
    assert [one.name for one in WandbStore().listing("SFT")] == ["my-team/nemotron/ModelArtifact-sft"]


def test_a_server_without_an_answer_is_unreachable_and_never_a_missing_artifact(
    server: WandbDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.models.wandb_artifacts.ANSWER_SECONDS", 2)
    registry = WandbStore()
    server.fail_with = 500
    with pytest.raises(Unreachable, match=rf"no usable answer from W&B {server.url}"):
        registry.find("run.model", model_references.parse("run.model", "nosuch:v1", {}), True)
    with pytest.raises(Unreachable, match="no usable answer"):
        WandbStore()
    server.fail_with = 0
    server.off()
    with pytest.raises(Unreachable, match=rf"W&B {server.url} does not answer \(Connection refused\)"):
        find("rl:latest")
    monkeypatch.setenv("WANDB_BASE_URL", "http://no-such-host.invalid")
    with pytest.raises(Unreachable, match=r"W&B http://no-such-host\.invalid does not answer"):
        find("rl:latest")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_with_the_fix(server: WandbDouble, status: int) -> None:
    if status == 401:
        server.expired.add(server.key)
    else:
        server.fail_with = status
    with pytest.raises(BadInput, match=rf"W&B {server.url} refuses the key .*wandb login --relogin --host={server.url}"):
        find("rl:latest")
