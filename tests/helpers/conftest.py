"""What tests of runs on Slurm share: a double of Slurm on PATH, and the scripts for a cluster with room for some of a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_node import ComputeNode
from helpers.cluster import connection
from registry_double import RegistryDouble
from slurm_double import SlurmDouble


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmDouble:
    """A double of Slurm's commands, first on PATH."""
    double = SlurmDouble(tmp_path / "double")
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    return double


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of scripts with room for some of the test's own."""
    folder = tmp_path / "on_cluster"
    folder.mkdir()
    for path in connection.SCRIPTS.glob("*.sh"):
        (folder / path.name).symlink_to(path)
    monkeypatch.setattr(connection, "SCRIPTS", folder)
    return folder


@pytest.fixture(scope="session")
def _registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryDouble]:
    double = RegistryDouble(tmp_path_factory.mktemp("registry"))
    yield double
    double.close()


@pytest.fixture
def registry(
    _registry_server: RegistryDouble, clean_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RegistryDouble:
    """A double of registries, empty, which this machine trusts, and so does a login node that is this machine."""
    double = _registry_server
    for kept in (double.manifests, double.rules, double.calls):
        kept.clear()
    (tmp_path / "home/.curlrc").write_text(double.curlrc())
    monkeypatch.setenv("SSL_CERT_FILE", str(double.certificate))
    monkeypatch.setenv("no_proxy", "*")
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "ENROOT_CONFIG_PATH", "ENROOT_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    return double


@pytest.fixture
def node(slurm: SlurmDouble, tmp_path: Path) -> Iterator[ComputeNode]:
    """A double of the compute nodes: what is queued runs."""
    double = ComputeNode(slurm, tmp_path / "node")
    yield double
    double.close()
