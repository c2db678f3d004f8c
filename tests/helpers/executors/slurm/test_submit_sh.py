"""prepare.sh and submit.sh of helpers/executors/slurm, through a real bash and a double of Slurm. On a real Slurm: tests/cluster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import scripts
from helpers.cluster.connection import ConnectionLost
from helpers.cluster.scripts import Frame
from helpers.common.errors import Unreachable
from local_jobs import until
from slurm_double import SlurmDouble
from slurm_submissions import HERE, NOTICES, once, submit, values

pytestmark = pytest.mark.slow

# ---- Each task once ----------------------------------------------------------------------------------------------------------------------


def queued_once(slurm: SlurmDouble, rundir: Path) -> None:
    """Each task has one job, and it is written down."""
    jobs = slurm.jobs()
    assert sorted(job["name"] for job in jobs) == ["acc-run.a.0", "acc-run.b.1", "acc-run.c.2"]
    for job in jobs:
        assert (rundir / job["name"].removeprefix("acc-run.") / ".submitted").read_text() == f"{job['id']}\n"


def test_each_task_is_queued_once_however_often_the_script_is_given(slurm: SlurmDouble, rundir: Path) -> None:
    assert submit(rundir) == [("queued", "0", "101"), ("queued", "1", "102"), ("queued", "2", "103")]
    assert submit(rundir) == [("found", "0", "101"), ("found", "1", "102"), ("found", "2", "103")]
    queued_once(slurm, rundir)


def test_given_four_times_at_once_each_task_is_queued_once(slurm: SlurmDouble, rundir: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: submit(rundir), range(4)))
    queued_once(slurm, rundir)
    for answer in answers:
        assert [job for _, _, job in answer] == ["101", "102", "103"]
    assert sum(kind == "queued" for answer in answers for kind, _, _ in answer) == 3


@pytest.mark.parametrize("call", ["1", "2", "3"])
def test_killed_as_slurm_has_taken_a_job_the_same_script_finds_it(slurm: SlurmDouble, rundir: Path, call: str) -> None:
    slurm.fault("sbatch", "", calls=call, when="killed")
    with pytest.raises(ConnectionLost):
        submit(rundir)
    assert len(slurm.jobs()) == int(call)
    slurm.repaired()
    assert len(submit(rundir)) == 3
    queued_once(slurm, rundir)


@pytest.mark.parametrize("cluster", ["", "gaea"])
def test_only_a_line_that_is_an_id_is_taken_for_one_whatever_is_printed_around_it(slurm: SlurmDouble, rundir: Path, cluster: str) -> None:
    slurm.answers_for(cluster)
    for command in ("sbatch", "squeue", "sacct", "scancel"):
        slurm.greets(command, *NOTICES)
    assert submit(rundir) == [("queued", "0", "101"), ("queued", "1", "102"), ("queued", "2", "103")]
    queued_once(slurm, rundir)
    assert submit(rundir) == [("found", "0", "101"), ("found", "1", "102"), ("found", "2", "103")]


def test_an_answer_that_is_lost_after_the_job_was_queued_queues_no_second(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "Socket timed out on send/recv operation", calls="2", when="after")
    assert submit(rundir) == [("queued", "0", "101"), ("queued", "1", "102"), ("queued", "2", "103")]
    queued_once(slurm, rundir)


def test_a_controller_that_is_away_for_a_moment_is_asked_again(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller", calls="2")
    assert [kind for kind, _, _ in submit(rundir)] == ["queued"] * 3
    queued_once(slurm, rundir)
    assert len(slurm.calls("sbatch")) == 4


def test_a_task_that_is_refused_takes_back_those_before_it_and_the_next_time_all_are_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit", calls="2")
    answer = submit(rundir)
    assert [kind for kind, _, _ in answer] == ["queued", "refused", "taken-back"]
    assert answer[-1][2] == "101"
    assert [(job["id"], job["state"]) for job in slurm.jobs()] == [(101, "CANCELLED")]
    slurm.repaired()
    assert submit(rundir) == [("queued", "0", "102"), ("queued", "1", "103"), ("queued", "2", "104")]
    assert (rundir / "a.0/.submitted").read_text() == "101\nvoid 101\n102\n"


def test_with_keep_partial_the_others_stay_and_the_next_time_the_one_is_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit", calls="2")
    assert [kind for kind, _, _ in submit(rundir, 1)] == ["queued", "refused", "queued"]
    slurm.repaired()
    assert submit(rundir, 1) == [("found", "0", "101"), ("queued", "1", "103"), ("found", "2", "102")]
    queued_once(slurm, rundir)


def test_while_the_queue_does_not_answer_nothing_is_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    assert [kind for kind, _, _ in submit(rundir)] == ["no-queue"]
    assert slurm.calls("sbatch") == []
    assert not (rundir / ".submitting").exists()


def test_a_run_folder_that_is_gone_is_reported(slurm: SlurmDouble, rundir: Path) -> None:
    given = values(rundir, KEEP_PARTIAL=0)
    rundir.rename(rundir.with_name("away"))
    frames = once("submit", **given)
    assert frames == [Frame("gone", "-", str(rundir).encode())]


def test_a_job_is_submitted_out_of_its_own_folder(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    assert [job["dir"] for job in slurm.jobs()] == [str((rundir / name).resolve()) for name in ("a.0", "b.1", "c.2")]


# ---- Looked at before --------------------------------------------------------------------------------------------------------------------


def prepare(rundir: Path, **more: Any) -> list[Frame]:
    given = {**values(rundir), "OUTPUT": str(rundir.parent), "PATHS": [], "SCRIPT": "#!/bin/bash\n", "PARTITION": "batch", **more}
    return once("prepare", **given)


def test_before_anything_is_queued_all_is_looked_at_and_nothing_is_left_behind(slurm: SlurmDouble, rundir: Path) -> None:
    (rundir / "b.1/.submitted").write_text("7\n")
    before = sorted(rundir.rglob("*"))
    frames = prepare(rundir, PATHS=[str(rundir), str(rundir / "no such $thing")])
    by_kind: dict[str, list[str]] = {}
    for frame in frames:
        by_kind.setdefault(frame.kind, []).append(frame.text)
    assert by_kind["missing"] == [str(rundir / "no such $thing")]
    assert by_kind["job"] == ["", "7", ""]
    assert by_kind["tested"] == [""]
    assert "output" not in by_kind
    assert len(by_kind["room"][0].split()) >= 6
    assert sorted(rundir.rglob("*")) == before
    assert slurm.jobs() == []


def test_a_folder_that_cannot_be_written_is_reported_in_the_system_s_words(slurm: SlurmDouble, rundir: Path) -> None:
    (rundir / "file").write_text("")
    frames = prepare(rundir, RUNDIR=str(rundir / "file" / "run"))
    assert "Not a directory" in next(frame.text for frame in frames if frame.kind == "output")


def test_a_double_of_slurm_is_no_slurm(slurm: SlurmDouble, rundir: Path) -> None:
    """Were the machine's own commands called, these tests would say nothing."""
    submit(rundir)
    assert until(lambda: slurm.calls("sbatch"))
    text = scripts.script("executors/slurm/submit.sh", **values(rundir, KEEP_PARTIAL=0))
    (slurm.bin / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(Unreachable):
        scripts._run_once(HERE, text, 1, False)
