"""What tests of runs on Slurm share: a double of Slurm on PATH, and the scripts for a cluster with room for some of a test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import remote
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
    for path in remote.SCRIPTS.glob("*.sh"):
        (folder / path.name).symlink_to(path)
    monkeypatch.setattr(remote, "SCRIPTS", folder)
    return folder
