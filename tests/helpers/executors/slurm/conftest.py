"""What tests of submissions to Slurm share: a double of a cluster, and a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nemo_evaluator_launcher.common import execdb

from cluster_double import RUN, ClusterDouble, queued
from helpers.cluster import copying, scripts
from helpers.launcher import api


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_env: dict[str, str]) -> Iterator[ClusterDouble]:
    """The double in the place of helpers/cluster, and a job database of the test's own."""
    double = ClusterDouble(submit=queued("101", "102", "103"))
    for module, name in ((scripts, "script"), (scripts, "run"), (copying, "upload")):
        monkeypatch.setattr(module, name, getattr(double, name))
    path = tmp_path / "exec.jsonl"
    monkeypatch.setattr(execdb, "EXEC_DB_FILE", path)
    monkeypatch.setattr(execdb, "EXEC_DB_DIR", tmp_path)
    monkeypatch.setattr(execdb.ExecutionDB, "_instance", None)
    monkeypatch.setattr(execdb.ExecutionDB, "_jobs", {})
    monkeypatch.setattr(execdb.ExecutionDB, "_invocations", {})
    with api.quietly():
        yield double


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / RUN).mkdir()
    return tmp_path / RUN
