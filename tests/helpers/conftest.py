"""What tests of runs on Slurm share: doubles of Slurm, its nodes and registries, and the bash scripts with room for a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_node import ComputeNode
from helpers.cluster import scripts
from registry_double import RegistryDouble
from slurm_double import SlurmDouble


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmDouble:
    """A double of Slurm's commands, first on PATH."""
    double = SlurmDouble(tmp_path / "double")
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    return double


@pytest.fixture
def script_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """helpers/ with its bash scripts alone, and room for some of the test's own."""
    folder = tmp_path / "helpers"
    for path in scripts.HELPERS.rglob("*.sh"):
        link = folder / path.relative_to(scripts.HELPERS)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    monkeypatch.setattr(scripts, "HELPERS", folder)
    return folder


@pytest.fixture
def rundir(tmp_path: Path) -> Path:
    """A run's folder on the cluster with three tasks in it."""
    folder = tmp_path / "run"
    for name in ("a.0", "b.1", "c.2"):
        for part in ("logs", "artifacts"):
            (folder / name / part).mkdir(parents=True)
        (folder / name / "run.sub").write_text(f"#!/bin/bash\n#SBATCH --job-name acc-run.{name}\n")
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
