"""Results to W&B from a real Slurm: the launcher's export job there, and what is made of its failure here."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from checkout import ROOT
from cluster.image_cases import registry, settings
from cluster.pipeline import HELD, Pipeline, said
from cluster.testbed import Bed, until
from wandb_double import ENTITY, PROJECT, WandbDouble

pytestmark = pytest.mark.usefixtures("idle")
KEY = "wandb_v1_" + "Clu5ter_" * 9 + "9"


def test_an_export_job_that_fails_is_noticed_and_fixed_and_the_key_lies_in_the_secrets_file_alone(cluster: Bed, tmp_path: Path) -> None:
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
        assert "environment" in refused.stderr
        double.expired.clear()
        done = pipeline.make("eval", f"CONFIG={config}")
        assert done.returncode == 0, done.stderr
        assert re.search(rf"✓ .*1 run.*{ENTITY}/{PROJECT}", done.stderr), done.stderr
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
        assert f"make eval RUN={pipeline.run.name}" in together.stderr
        assert "auto_export" not in (pipeline.run / "launcher.yaml").read_text()
        pipeline.scancel(pipeline.run)


def test_the_launchers_export_job_writes_to_the_run_that_is_verified_from_here(cluster: Bed, tmp_path: Path) -> None:
    """In a squashed image, with the launcher and the SDK of this .venv instead of what pip would fetch, against a double of the server."""
    pipeline = Pipeline.made(cluster, tmp_path)
    venv = (ROOT / ".venv").resolve()
    mounts = {str(venv): str(venv)}
    if sys.base_prefix != "/usr":  # that one the image has too; another may lie in a home, which nodes do not see
        python = cluster.name / "jobs/python"
        shutil.rmtree(python, ignore_errors=True)
        spare = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "*.a", "include", "share")
        shutil.copytree(sys.base_prefix, python, symlinks=True, ignore=spare)
        mounts[str(python)] = sys.base_prefix
    export = {
        "destinations": ["wandb"],
        "export_image": f"docker://{registry(cluster)}/evalmake/toy:25.11",
        "export_mounts": mounts,
        "launcher_install_cmd": f"export HOME=/tmp PYTHONPATH= PATH={venv}/bin:$PATH",
    }
    config = pipeline.write_config("exported", ["toy.sums", "toy.differences"], execution={"auto_export": export})
    with WandbDouble(host=settings(cluster)[1]) as double:
        double.keys[KEY] = "me"
        pipeline.environment |= {"WANDB_BASE_URL": double.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT}
        done = pipeline.make("batch", f"CONFIG={config}")
        assert done.returncode == 0, said(done)
        image = next(row for row in pipeline.document(pipeline.run, "images")["images"] if "auto-export" in row["users"])
        folders = [Path(job["remote_dir"]) for job in pipeline.document(pipeline.run)["jobs"]]
        invocation = pipeline.document(pipeline.run)["invocation_id"]
        ids = {f"{invocation}-{folder.name}" for folder in folders}

        def logs() -> str:
            return "\n".join(log.read_text() for folder in folders for log in folder.glob("logs/export-*.log"))

        until(lambda: {run.name for run in double.runs.values() if run.state == "finished" and run.summary} == ids, 120, logs)
        until(lambda: not pipeline.bed.slurm("squeue", "-h", "-t", "R,PD,CG", "-o", "%j").count("nel-export"), 60, logs)
        assert "Export to wandb failed" not in logs()
        assert all(image["path"] in (folder / "export.sbatch").read_text() for folder in folders)
        verified = pipeline.make("eval", f"RUN={pipeline.run.name}")
        assert verified.returncode == 0, said(verified)
        assert re.search(rf"✓ .*2 runs.*{ENTITY}/{PROJECT}", verified.stderr), verified.stderr
        assert {run.name for run in double.runs.values()} == ids, "none is there twice"
        for row, folder in zip(pipeline.document(pipeline.run, "results")["rows"], folders, strict=True):
            assert row["value"] in double.run(f"{invocation}-{folder.name}").summary.values()
