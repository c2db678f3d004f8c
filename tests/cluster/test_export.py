"""Results to W&B from a real Slurm: the launcher's export job there, and what is made of its failure here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.pipeline import HELD, Pipeline
from cluster.testbed import Bed, until
from wandb_double import ENTITY, PROJECT, WandbDouble

pytestmark = pytest.mark.usefixtures("idle")
KEY = "wandb_v1_" + "Clu5ter_" * 9 + "9"


def test_an_export_job_that_fails_is_noticed_and_mended_and_the_key_lies_in_the_secrets_file_alone(cluster: Bed, tmp_path: Path) -> None:
    """The toy image has no launcher, so the export job's own command fails, in the silence of its log."""
    pipeline = Pipeline.made(cluster, tmp_path)
    image = f"{cluster.name}/images/toy.sqsh"
    export = {"destinations": ["wandb"], "export_image": image, "launcher_install_cmd": 'echo "id is $WANDB_RUN_ID"'}
    config = pipeline.write_config("exporting", ["toy.sums"], execution={"auto_export": export})
    with WandbDouble() as double:
        double.keys[KEY] = "me"
        pipeline.environment |= {
            "WANDB_BASE_URL": double.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": ENTITY,
            "WANDB_PROJECT": PROJECT,
        }
        double.expired.add(KEY)
        refused = pipeline.make("eval", f"CONFIG={config}")
        assert "Error 2" in refused.stderr
        assert "refuses the key from environment" in refused.stderr
        double.expired.clear()
        done = pipeline.make("eval", f"CONFIG={config}")
        assert done.returncode == 0, done.stderr
        assert f"✓ W&B holds the scores: 1 run in {ENTITY}/{PROJECT}, verified" in done.stderr
        (path,) = pipeline.project.glob("runs/*/exports.json")
        (one,) = json.loads(path.read_text())["runs"]
        (job,) = json.loads(path.with_name("submission.json").read_text())["jobs"]
        there = Path(job["remote_dir"])
        log = until(
            lambda: next((found for found in there.glob("logs/export-*.log") if "Export to wandb failed" in found.read_text()), None), 60
        )
        assert f"id is {one['id']}" in log.read_text(), "both write to one W&B run"
        (row,) = json.loads(path.with_name("results.json").read_text())["rows"]
        assert row["value"] in double.run(one["id"]).summary.values()
        holders = [found for found in there.parent.rglob("*") if found.is_file() and KEY.encode() in found.read_bytes()]
        assert {found.name for found in holders} == {".secrets.env"}
        assert {found.stat().st_mode & 0o777 for found in holders} == {0o600}
        assert [found for found in path.parent.rglob("*") if found.is_file() and KEY.encode() in found.read_bytes()] == []
        assert KEY not in done.stdout + done.stderr + cluster.slurm("squeue", "-o", "%all")
        together = pipeline.make("batch", f"CONFIG={config}", f"SET=+export.wandb.log_mode=multi_task {HELD}")
        assert f"scores go to W&B from this machine when the tasks have ended: by `make eval RUN={pipeline.run.name}`" in together.stderr
        assert "auto_export" not in (pipeline.run / "launcher.yaml").read_text()
        pipeline.scancel(pipeline.run)
