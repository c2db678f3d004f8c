"""Submissions to Slurm for tests: their document, the folders of their tasks, and their jobs in the double of Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.common import files
from slurm_double import SlurmDouble

LOCAL = {"host": "here", "user": None, "port": None, "identity": None, "tunnel": "local"}


def submission(folder: Path, *tasks: str, cluster: dict[str, Any] = LOCAL, run: str = "run") -> dict[str, Any]:
    """A submission whose tasks have the jobs 1, 2, …; their folders are there."""
    jobs = []
    for index, task in enumerate(tasks):
        there = folder / run / f"{task}.{index}"
        for part in ("logs", "artifacts"):
            (there / part).mkdir(parents=True)
        (there / ".submitted").write_text(f"{index + 1}\n")
        jobs.append(
            {
                "task": task, "index": index, "harness": "h", "job_id": f"{'0' * 16}.{index}", "slurm_job_id": str(index + 1),
                "remote_dir": str(there), "job_dir": str(folder / "home" / there.name), "job_name": f"acc-{run}.{there.name}", "samples": 7,
            }
        )  # fmt: skip
    document = {
        "made_by": "test", "made_from": {}, "invocation_id": "0" * 16, "executor": "slurm", "cluster": cluster,
        "submitted_at": "2026-11-22T01:02:03Z", "jobs": jobs,
    }  # fmt: skip
    return files.seal_json(document)


def show(slurm: SlurmDouble, one: dict[str, Any], index: int, state: str, **fields: str) -> None:
    job = one["jobs"][index]
    slurm.job(int(job["slurm_job_id"]), state, job["job_name"], job["remote_dir"], **fields)
