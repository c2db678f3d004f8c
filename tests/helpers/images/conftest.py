"""What tests of images share: a remote_job_dir, and what an import needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compute_node import ComputeNode
from helpers.images import importing
from registry_double import RegistryDouble
from slurm_double import SlurmDouble


@pytest.fixture
def job_dir(tmp_path: Path, slurm: SlurmDouble) -> Path:
    """A remote_job_dir with a name of the kind that people give; its nodes are x86_64."""
    slurm.nodes_are("x86_64")
    folder = tmp_path / "jobs of $USER; 'mine'"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def imports(job_dir: Path, slurm: SlurmDouble, node: ComputeNode, registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute nodes of this machine's kind, a registry that has the model, and a tenth of the usual pauses."""
    monkeypatch.setattr(importing, "ASK_FIRST", 0.1)
    monkeypatch.setattr(importing, "ASK_MOST", 0.3)
    slurm.nodes_are(os.uname().machine)
    registry.put("team/model", "1")
