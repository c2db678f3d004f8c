"""cancel.sh and resume.sh of helpers/executors/slurm, through a real bash and a double of Slurm. On a real Slurm: tests/cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.cluster.connection import ConnectionLost
from slurm_double import SlurmDouble
from slurm_submissions import once, submit, values

pytestmark = pytest.mark.slow


def test_all_jobs_of_the_tasks_are_cancelled_the_highest_first_and_no_others(slurm: SlurmDouble, rundir: Path, tmp_path: Path) -> None:
    slurm.job(5, "RUNNING", "acc-run.a.0", rundir / "a.0")
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Dependency")
    slurm.job(7, "RUNNING", "acc-run.a.0", tmp_path / "elsewhere/a.0")
    slurm.job(8, "RUNNING", "acc-other.a.0", rundir / "a.0")
    slurm.job(9, "COMPLETED", "acc-run.b.1", rundir / "b.1")
    frames = once("cancel", **values(rundir, TAKE_BACK=0))
    assert [(frame.kind, frame.key) for frame in frames] == [("cancelled", "6"), ("cancelled", "5")]
    assert {job["id"]: job["state"] for job in slurm.jobs()} == {5: "CANCELLED", 6: "CANCELLED", 7: "RUNNING", 8: "RUNNING", 9: "COMPLETED"}
    assert (rundir / "a.0/.submitted").read_text() == "cancelled\n"
    assert not (rundir / "b.1/.submitted").exists()


def test_jobs_that_were_never_recorded_are_taken_back_and_submitted_again(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    once("cancel", **values(rundir, TAKE_BACK=1))
    assert {job["state"] for job in slurm.jobs()} == {"CANCELLED"}
    assert [kind for kind, _, _ in submit(rundir)] == ["queued"] * 3


def resume(rundir: Path) -> list[tuple[str, str, str]]:
    frames = once("resume", **values(rundir))
    return [(frame.kind, frame.key, frame.text) for frame in frames]


def test_a_task_is_queued_again_in_its_own_folder_and_not_twice(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    for number, name in ((101, "a.0"), (102, "b.1"), (103, "c.2")):
        slurm.job(number, "FAILED", f"acc-run.{name}", (rundir / name).resolve())
    left = [".slurm_job_id.list", ".accumulated_walltime", "artifacts/.nemo_evaluator_interrupted", "artifacts/results.yml"]
    for name in left:
        (rundir / "a.0" / name).write_text("x")
    (rundir / "a.0/artifacts/kept").write_text("x")
    assert resume(rundir) == [("queued", "0", "104"), ("queued", "1", "105"), ("queued", "2", "106")]
    assert not any((rundir / "a.0" / name).exists() for name in left)
    assert (rundir / "a.0/artifacts/kept").exists()
    assert (rundir / "a.0/.submitted").read_text() == "101\n104\n"
    assert resume(rundir) == [("found", "0", "104"), ("found", "1", "105"), ("found", "2", "106")]


def test_answers_are_kept_for_a_resumed_task_unless_none_carried_anything_to_score(slurm: SlurmDouble, rundir: Path) -> None:
    tasks = [rundir / name for name in ("a.0", "b.1", "c.2")]
    for task, scorable in zip(tasks, (0, 3), strict=False):
        (task / "answers.json").write_text(json.dumps({"answers": {"seen": 3, "scorable": scorable, "empty": 3 - scorable}}))
    for task in tasks:
        (task / "artifacts/cache").mkdir(parents=True)
    resume(rundir)
    assert [(task / "artifacts/cache").exists() for task in tasks] == [False, True, True]
    assert [(task / "answers.json").exists() for task in tasks] == [False, False, False]


def test_killed_as_slurm_has_taken_it_the_resumed_job_is_found_and_written_down(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    for number, name in ((101, "a.0"), (102, "b.1"), (103, "c.2")):
        slurm.job(number, "FAILED", f"acc-run.{name}", (rundir / name).resolve())
    slurm.repaired()
    slurm.fault("sbatch", "", calls="2", when="killed")
    with pytest.raises(ConnectionLost):
        resume(rundir)
    slurm.repaired()
    assert resume(rundir) == [("found", "0", "104"), ("found", "1", "105"), ("queued", "2", "106")]
    assert (rundir / "b.1/.submitted").read_text() == "102\n105\n"
    assert len(slurm.jobs()) == 6
