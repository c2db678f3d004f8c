"""helpers/models/manifests.py: artifacts in real folders of manifests, here, through a URI, and on a cluster in one round trip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.cluster.connection import Cluster
from helpers.common.errors import BadInput, Unreachable
from helpers.config import model_references
from helpers.config.model_references import Reference
from helpers.models.manifests import Manifests
from manifests import put
from slurm_double import SlurmDouble

HERE = Cluster("login", tunnel="local")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    for version in ("v1", "v2", "v10"):
        put(folder, "ModelArtifact-rl", version, f"/lustre/rl/{version}", arch="nano")
    (folder / "ModelArtifact-rl/latest").write_text("v2\n")
    put(folder, "ModelArtifact-sft", "v1", "/lustre/sft/1")
    (folder / "README.txt").write_text("no artifact")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(params=["path", "uri", "cluster"])
def registry(request: pytest.FixtureRequest, root: Path, slurm: SlurmDouble) -> Manifests:
    """The same folder, however it is reached."""
    return Manifests(f"file://{root}" if request.param == "uri" else str(root), HERE if request.param == "cluster" else None)


def reference(text: str) -> Reference:
    return model_references.parse("run.model", text, model_references.SHORT_NAMES)


def test_a_version_is_found_with_its_path_metadata_and_digest(registry: Manifests) -> None:
    found = registry.find("run.model", reference("rl:v10"), True)
    assert (found.name, found.version, found.path, found.kind) == ("ModelArtifact-rl", "v10", "/lustre/rl/v10", "ModelArtifact")
    assert found.metadata["arch"] == "nano"
    assert found.digest.startswith("sha256:")
    assert found.digest != registry.find("run.model", reference("rl:v1"), True).digest


def test_the_digest_is_the_same_from_here_and_from_there(root: Path, slurm: SlurmDouble) -> None:
    digests = {Manifests(str(root), where).find("run.model", reference("rl:v2"), True).digest for where in (None, HERE)}
    assert len(digests) == 1


def test_latest_is_what_the_file_says_and_without_it_the_highest_number(registry: Manifests, root: Path) -> None:
    assert registry.find("run.model", reference("rl:latest"), True).version == "v2"
    (root / "ModelArtifact-rl/latest").unlink()
    assert registry.find("run.model", reference("rl:latest"), True).version == "v10"


def test_the_error_for_a_missing_version_or_name_lists_those_that_exist(registry: Manifests) -> None:
    with pytest.raises(BadInput, match=r"ModelArtifact-rl has no version v9; it has latest, v10, v2, v1"):
        registry.find("run.model", reference("rl:v9"), True)
    with pytest.raises(
        BadInput, match=r"has no artifact ModelArtifact-lr \(did you mean ModelArtifact-rl or .*it has ModelArtifact-rl, ModelA"
    ):
        registry.find("run.model", reference("ModelArtifact-lr:v1"), True)
    with pytest.raises(BadInput, match="has no artifact empty"):
        registry.find("run.model", reference("empty:latest"), True)


def test_the_error_for_an_incomplete_or_invalid_manifest_names_its_file(registry: Manifests, root: Path) -> None:
    folder = root / "ModelArtifact-rl"
    (folder / "latest").write_text("v3")
    with pytest.raises(BadInput, match=r"latest.* says 'v3', but there is no such version; the versions are v1, v2, v10"):
        registry.find("run.model", reference("rl:latest"), True)
    (folder / "v3").mkdir()
    with pytest.raises(BadInput, match=r"v3.* has no manifest\.json: writing it was interrupted"):
        registry.find("run.model", reference("rl:latest"), True)
    (folder / "v3/manifest.json").write_text('{"path": ')
    with pytest.raises(BadInput, match=r"v3.*/manifest\.json.*: not JSON"):
        registry.find("run.model", reference("rl:latest"), True)
    (folder / "v3/manifest.json").write_text("[]")
    with pytest.raises(BadInput, match=r"expected a JSON object"):
        registry.find("run.model", reference("rl:latest"), True)


def test_every_artifact_that_can_be_named_is_listed(registry: Manifests) -> None:
    found = registry.listing("")
    assert [(one.name, one.versions, one.aliases) for one in found] == [
        ("ModelArtifact-rl", ["v1", "v2", "v10"], {"latest": "v2"}),
        ("ModelArtifact-sft", ["v1"], {"latest": "v1"}),
    ]
    assert [one.name for one in registry.listing("SFT")] == ["ModelArtifact-sft"]


def test_the_error_for_a_missing_root_says_on_which_machine(tmp_path: Path, slurm: SlurmDouble) -> None:
    with pytest.raises(BadInput, match=r"none: no such folder; check root"):
        Manifests(f"{tmp_path}/none", None).listing("")
    with pytest.raises(BadInput, match=r"none on this login node: no such folder; check root"):
        Manifests(f"{tmp_path}/none", HERE).listing("")


def test_an_unreachable_root_is_not_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"fix root|another package"):
        Manifests("nosuch://x", None).find("run.model", reference("rl:v1"), True)
    with pytest.raises(Unreachable, match="could not be read"):
        Manifests("http://127.0.0.1:9/artifacts", None).find("run.model", reference("rl:v1"), True)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text("#!/bin/sh\necho 'ssh: connect to host login port 22: Connection refused' >&2\nexit 255\n")
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(Unreachable, match="refuses the connection"):
        Manifests("/lustre/artifacts", Cluster("login")).find("run.model", reference("rl:v1"), True)
