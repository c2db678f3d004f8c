"""The export to W&B end to end: `make eval` with the real model and the real SDK, against the double of a W&B server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkout import Make
from helpers.executors.process import jobs as process_jobs
from local_jobs import served_by, until
from test_faults_local import configure
from test_hosted import tree
from wandb_double import ENTITY, PROJECT, WandbDouble

pytestmark = pytest.mark.slow

KEY = "wandb_v1_" + "Pl4nt3d_" * 9 + "9"  # of the new form
EXPORTED = "SET=execution.auto_export.destinations=[wandb]"
WANDB = f'[wandb]\nproject = "{PROJECT}"\nentity = "{ENTITY}"\n'


@pytest.fixture
def double(project: Path, clean_env: dict[str, str]) -> Iterator[WandbDouble]:
    """A self-hosted server; the person is logged in to it, and env.toml says where results belong."""
    with WandbDouble() as double:
        double.keys[KEY] = "me"
        host = double.url.removeprefix("http://")
        (Path(clean_env["HOME"]) / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
        (project / "env.toml").write_text(WANDB)
        clean_env["WANDB_BASE_URL"] = double.url
        yield double


def exports(project: Path) -> dict[str, Any]:
    (path,) = project.glob("runs/*/exports.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_scores_are_in_wandb_after_make_eval_and_the_key_is_nowhere(
    make: Make, project: Path, double: WandbDouble, clean_env: dict[str, str]
) -> None:
    done = make("eval", "QUICK=2", "TASKS=opposites capitals", EXPORTED)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "[info] Detected W&B login, setting WANDB_API_KEY" in lines
    assert f"[info] W&B at {double.url}: the key belongs to me and may write to {ENTITY}/{PROJECT}" in lines
    assert f"✓ W&B holds the scores: 2 runs in {ENTITY}/{PROJECT}, verified" in lines
    rows = json.loads(next(project.glob("runs/*/results.json")).read_text())["rows"]
    for row, one in zip(rows, exports(project)["runs"], strict=True):
        assert f"  {row['task']}: {one['url']}" in lines
        assert one["url"] == f"{double.url}/{ENTITY}/{PROJECT}/runs/{one['id']}"
        summary = double.run(one["id"]).summary
        assert summary[f"{row['task']}_accuracy"] == pytest.approx(row["value"])
        assert summary[f"{row['task']}_accuracy_n"] == 2
    assert double.keys_seen() == {KEY, None}
    assert double.unknown == []
    again = make("export")
    assert again.returncode == 0, again.stderr
    assert make("eval", "RUN=latest").returncode == 0
    assert len(double.runs) == 2
    assert [len(run.history) for run in double.runs.values()] == [1, 1]
    home = Path(clean_env["HOME"])
    left = [path for path in tree(project, home) if path != home / ".netrc" and KEY.encode() in path.read_bytes()]
    assert left == []
    assert KEY not in done.stdout + done.stderr + again.stderr


def test_a_failed_export_is_reported_and_the_evaluation_succeeds(make: Make, project: Path, double: WandbDouble) -> None:
    double.off()
    done = make("eval", configure(project, served_by()), "QUICK=1", "TASKS=opposites", EXPORTED)
    assert done.returncode == 0, done.stderr
    assert "the evaluation continues, and its export is verified at the end" in done.stderr
    failures = [line for line in done.stderr.splitlines() if line.startswith("✗ ")]
    assert len(failures) == 1
    assert failures[0].startswith(f"✗ The export to W&B failed: W&B at {double.url} does not answer")
    assert "`make export RUN=" in failures[0]
    assert exports(project)["state"] == "failed"
    assert make("export").stderr.startswith(f"error: W&B at {double.url} does not answer")
    double.on()
    fixed = make("export")
    assert fixed.returncode == 0, fixed.stderr
    assert exports(project)["state"] == "verified"
    assert "✓ W&B holds the scores" in make("eval", "RUN=latest").stderr


def test_a_refused_key_stops_before_anything_is_submitted(make: Make, project: Path, double: WandbDouble) -> None:
    double.expired.add(KEY)
    done = make("eval", configure(project, served_by()), "QUICK=1", "TASKS=opposites", EXPORTED)
    assert done.returncode == 2
    assert "Error 2" in done.stderr
    assert f"error: W&B at {double.url} refuses the key from netrc" in done.stderr
    assert not list(project.glob("runs/*/launcher.yaml"))
    assert not list(project.glob("runs/*/jobs"))
    dry = make("dry-run", configure(project, served_by()), "TASKS=opposites", EXPORTED)
    assert dry.returncode == 0
    assert len(double.calls) == 1, "a dry run asks nobody"
    off = make("eval", configure(project, served_by()), "QUICK=1", "TASKS=opposites", EXPORTED + " execution.auto_export.enabled=false")
    assert off.returncode == 0, off.stderr
    assert len(double.calls) == 1
    assert exports(project)["state"] == "nothing"


def test_a_batch_is_exported_when_it_ends(make: Make, project: Path, double: WandbDouble) -> None:
    done = make("batch", configure(project, served_by()), "QUICK=1", "TASKS=opposites", EXPORTED)
    assert done.returncode == 0, done.stderr
    (jobs,) = project.glob("runs/*/jobs")
    until(lambda: not process_jobs.is_supervised(jobs), 60)
    assert exports(project)["state"] == "verified", (jobs / "export.log").read_text()
    (run,) = double.runs.values()
    assert run.summary["opposites_accuracy_n"] == 1
    assert KEY not in (jobs / "export.log").read_text()


def test_an_export_by_hand_uses_the_project_of_env_toml(make: Make, project: Path, double: WandbDouble) -> None:
    (project / "env.toml").write_text(WANDB + '[P]\nexecutor = "local"\nwandb = { project = "of-the-profile" }\n')
    done = make("eval", configure(project, served_by()), "PROFILE=P", "QUICK=1", "TASKS=opposites")
    assert done.returncode == 0, done.stderr
    assert double.calls == []
    refused = make("export", "DEST=gsheets")
    assert "Error 2" in refused.stderr
    assert "--dest gsheets" in refused.stderr
    assert make("export", "DEST=wandb").returncode == 0
    assert {(entity, project) for entity, project, _ in double.runs} == {(ENTITY, "of-the-profile")}
