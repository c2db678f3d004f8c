"""Submissions to Slurm for tests: their document, the folders of their tasks, their jobs in the double of Slurm, and scripts about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from helpers.cluster import scripts
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import files
from helpers.executors import answers
from slurm_double import SlurmDouble

LOCAL = {"host": "here", "user": None, "port": None, "identity": None, "tunnel": "local"}
HERE = Cluster(**LOCAL)
# What clusters print around the answers of Slurm's commands; nothing of it is a job's id, node or state.
NOTICES = "2026-11-27: maintenance until 18:00\n4711 nodes | are | up\nWelcome!\n", "Lmod: 3 modules\n12 jobs of yours wait\n99.batch\n"


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


def values(rundir: Path, **more: Any) -> dict[str, Any]:
    """The variables that scripts about the tasks of a run's folder have in common."""
    folders = sorted(path for path in rundir.iterdir() if re.search(r"\.\d$", path.name))
    return {
        "RUNDIR": str(rundir),
        "NAMES": [f"acc-run.{path.name}" for path in folders],
        "DIRS": list(map(str, folders)),
        "DAYS": 2,
        "COUNTING": Path(answers.__file__).read_text(),
        **more,
    }


def once(name: str, **given: Any) -> list[Frame]:
    """What helpers/executors/slurm/NAME.sh answers here, given once."""
    return scripts._run_once(HERE, scripts.script(f"executors/slurm/{name}.sh", **given), 60, False)


def probe(folder: Path, rundir: Path, body: str, needs: str = "cluster/common.sh", **more: Any) -> list[Frame]:
    """The frames of a script of the test's own; `folder` is that of the fixture script_folder."""
    (folder / "probe.sh").write_text(f"# Needs: {needs}\nmain() {{\n{body}\nfinish\n}}\n")
    return scripts._run_once(HERE, scripts.script("probe.sh", **values(rundir, **more)), 30, False)


def texts(frames: list[Frame]) -> list[str]:
    return [frame.text for frame in frames]


def submit(rundir: Path, keep_partial: int = 0) -> list[tuple[str, str, str]]:
    """What submit.sh answers for all tasks of a run's folder."""
    return [(frame.kind, frame.key, frame.text) for frame in once("submit", **values(rundir, KEEP_PARTIAL=keep_partial))]
