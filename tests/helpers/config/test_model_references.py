"""config/model_references.py: what a reference means, what the configs say of where it is looked up, and what `${art:…}` becomes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compiled import PROFILE, SLURM, at, compile_text
from helpers.common.errors import BadInput
from helpers.config import model_references
from helpers.config.model_references import Artifact, ListedArtifact, Reference

FILE = '\n[artifacts]\nbackend = "file"\nroot = "/lustre/artifacts"\n'
OPEN = SLURM.replace("checkpoint_path: /c", 'checkpoint_path: "${art:model,path}"') + "run: {model: rl:latest}\n"


class Shelf:
    """A registry with one artifact in it."""

    where = "a shelf"

    def __init__(self, **metadata: Any) -> None:
        self.metadata = metadata
        self.asked: list[str] = []

    def find(self, key: str, reference: Reference, with_path: bool) -> Artifact:
        self.asked.append(f"{key} {reference.name}:{reference.version} {with_path}")
        path, why = model_references.path_in(self.metadata)
        return Artifact(reference.name, "v3", "d", "model", self.metadata, path, why)

    def listing(self, match: str) -> list[ListedArtifact]:
        raise AssertionError(match)


@pytest.mark.parametrize(
    ("text", "name", "version", "holders"),
    [
        ("rl:latest", "ModelArtifact-rl", "latest", (None, None)),
        ("sft:v2", "ModelArtifact-sft", "v2", (None, None)),
        ("pretrain:7", "ModelArtifact-pretrain", "v7", (None, None)),
        ("rl", "ModelArtifact-rl", "latest", (None, None)),
        ("nano3-rl-model:best", "nano3-rl-model", "best", (None, None)),
        ("nemotron/rl:v1", "rl", "v1", (None, "nemotron")),
        ("my-team/nemotron/ModelArtifact-rl:latest", "ModelArtifact-rl", "latest", ("my-team", "nemotron")),
    ],
)
def test_a_reference_is_a_name_and_a_version_and_short_names_are_those_of_the_table(
    text: str, name: str, version: str, holders: tuple[str | None, str | None]
) -> None:
    assert model_references.parse("run.model", text, model_references.SHORT_NAMES) == Reference(text, name, version, *holders)


@pytest.mark.parametrize("text", ["", ":v1", "rl:", "a/b/c/d:v1", "rl:v1:v2", "/rl:v1"])
def test_what_is_no_reference_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(BadInput, match=r"run\.model=.*: expected NAME:VERSION"):
        model_references.parse("run.model", text, {})


@pytest.mark.parametrize(
    ("settings", "root"),
    [
        ({}, None),
        ({"backend": "wandb", "root": "/r"}, None),
        ({"backend": "file", "root": "/r", "wandb": True}, "/r"),
        ({"root": "/r"}, "/r"),
        ({"manifest": {"root": "/r"}}, "/r"),
        ({"manifest": {"root": "/r"}, "wandb": True}, None),
        ({"manifest": {"root": "/r", "wandb": True}}, None),
        ({"manifest": {"root": "/r"}, "wandb": False}, "/r"),
    ],
)
def test_models_are_looked_up_in_one_place_and_w_and_b_wins_where_both_are_there(settings: Mapping[str, Any], root: str | None) -> None:
    assert model_references.manifest_root({"run": {"artifacts": settings}}) == root


@pytest.mark.parametrize("settings", [{"backend": "file"}, {"wandb": False}, {"backend": "file", "manifest": {}}])
def test_a_file_backend_without_a_root_is_refused_with_the_fix(settings: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"no root; write `root = .*env\.toml"):
        model_references.manifest_root({"run": {"artifacts": settings}})


@pytest.mark.slow
def test_a_config_keeps_the_reference_and_writes_out_what_short_names_mean(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, OPEN + "  \n", PROFILE + FILE, "C")
    assert at(compiled.config, "deployment.checkpoint_path") == "${art:model,path}"
    assert at(compiled.config, "run.artifacts.root") == "/lustre/artifacts"
    assert at(compiled.config, "run.artifacts.names") == model_references.SHORT_NAMES
    assert compiled.keys["run.artifacts.root"][-1].set_by.endswith("env.toml:16")
    own = compile_text(tmp_path, OPEN, PROFILE + FILE, "C", overrides=["+run.artifacts.names.rl=nano3-rl-model"])
    assert model_references.references(own.config)["model"].name == "nano3-rl-model"
    assert model_references.references(own.config)["model"].text == "rl:latest"


def test_a_config_that_gives_its_checkpoint_names_no_artifact_though_run_model_is_there(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, OPEN, PROFILE, "C", overrides=["deployment.checkpoint_path=/lustre/mine"])
    assert model_references.references(compiled.config) == {}
    assert model_references.asks_wandb(compiled.config) == {}
    assert "names" not in (at(compiled.config, "run").get("artifacts") or {})
    registry = Shelf()
    assert model_references.recorded(compiled.config, registry) == {}
    assert registry.asked == []


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("${art:model,pth}", r"mine\.yaml:7: deployment\.checkpoint_path: .*one of path, version, name, digest, metadata\.KEY.*mean path"),
        ("${art:model,metadata.}", r"expected one of .*metadata\.KEY"),
        ("${art:modle,path}", r"run\.modle has no value"),
        ("${art:}", r"a key of `run`"),
    ],
)
def test_a_field_or_key_that_there_is_not_is_reported_before_anything_is_asked(tmp_path: Path, field: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compile_text(tmp_path, OPEN.replace("${art:model,path}", field), PROFILE, "C")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("a/b/c/d:v1", r"SET run\.model: run\.model=a/b/c/d:v1: expected NAME:VERSION"),
        ("my-team/nemotron/rl:v1", r"names a W&B project, but artifacts are looked up in files"),
    ],
)
def test_a_reference_that_no_lookup_could_answer_is_reported_when_the_config_is_compiled(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compile_text(tmp_path, OPEN, PROFILE + FILE, "C", overrides=[f"run.model={model}"])


def test_what_is_recorded_is_the_concrete_version_and_the_metadata_that_the_config_uses(tmp_path: Path) -> None:
    text = OPEN.replace("served_model_name: m", 'served_model_name: "${art:model,metadata.arch}-${art:model,version}"')
    config = compile_text(tmp_path, text, PROFILE, "C").config
    registry = Shelf(absolute_path="/lustre/rl/3", arch="nano", key="secret")
    models = model_references.recorded(config, registry)
    assert registry.asked == ["run.model ModelArtifact-rl:latest True"]
    assert models["model"]["version"] == "v3"
    assert models["model"]["metadata"] == {"arch": "nano"}
    filled = model_references.filled(config, models)
    assert at(filled, "deployment.checkpoint_path") == "/lustre/rl/3"
    assert at(filled, "deployment.served_model_name") == "nano-v3"
    assert "secret" not in str(models)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"arch": "a"}, r"does not say where its files are: its metadata has none of absolute_path, .*SET="),
        ({"path": "s3://bucket/rl"}, r"path is s3://bucket/rl, not a path of a filesystem"),
        ({"path": "relative/rl"}, r"not a path of a filesystem"),
    ],
)
def test_an_artifact_that_does_not_say_where_it_is_is_refused_with_what_it_says(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    config = compile_text(tmp_path, OPEN, PROFILE, "C").config
    with pytest.raises(BadInput, match=message):
        model_references.recorded(config, Shelf(**metadata))


def test_metadata_that_is_not_there_is_reported_with_what_is(tmp_path: Path) -> None:
    config = compile_text(tmp_path, OPEN.replace("model,path", "model,metadata.pth"), PROFILE, "C").config
    with pytest.raises(BadInput, match=r"has no pth \(did you mean path\?\); it has arch, path"):
        model_references.recorded(config, Shelf(path="/p", arch="a", nested={}))


@pytest.mark.parametrize("value", ["$(touch x)", "a;b", "a b", "`id`", "a'b", "--x\n"])
def test_what_a_shell_could_expand_is_not_taken_from_an_artifact(tmp_path: Path, value: str) -> None:
    text = OPEN.replace("served_model_name: m", 'served_model_name: "${art:model,metadata.arch}"')
    config = compile_text(tmp_path, text, PROFILE, "C").config
    with pytest.raises(BadInput, match=r"the metadata arch of .* which a shell could expand"):
        model_references.recorded(config, Shelf(path="/p", arch=value))
    if value != "a b":
        with pytest.raises(BadInput, match=r"the path of .* which a shell could expand"):
            model_references.recorded(config, Shelf(path=f"/p/{value}", arch="a"))


def test_a_path_may_be_written_as_a_file_uri() -> None:
    assert model_references.path_of("file:///lustre/my%20model") == "/lustre/my model"
    assert model_references.path_of("s3://b/k") is None
    assert model_references.path_of("file://host") is None


def test_what_is_not_there_is_reported_with_the_nearest_and_with_what_is() -> None:
    reference = model_references.parse("run.model", "rll:latest", model_references.SHORT_NAMES)
    said = str(model_references.no_name("run.model", reference, "W&B project t/p", ["ModelArtifact-rl", "ModelArtifact-sft"]))
    assert "run.model=rll:latest: W&B project t/p has no artifact rll (did you mean ModelArtifact-rl?)" in said
    assert "it has ModelArtifact-rl, ModelArtifact-sft; `make models` lists them" in said
    assert "it has none" in str(model_references.no_name("run.model", reference, "/r", []))
    named = model_references.parse("run.model", "rl:lastest", model_references.SHORT_NAMES)
    said = str(model_references.no_version("run.model", named, "t/p/rl", [f"v{n}" for n in range(12)], ["latest", "best"]))
    assert "t/p/rl has no version lastest (did you mean latest?); it has latest, best, v11, v10" in said
    assert said.endswith("and 6 more")
    numbered = model_references.parse("run.model", "rl:v99", model_references.SHORT_NAMES)
    assert "did you mean" not in str(model_references.no_version("run.model", numbered, "rl", ["v1", "v9"], []))
