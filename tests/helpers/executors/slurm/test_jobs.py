"""executors/slurm/jobs.py over a double of Slurm: what comes home, what is cancelled and queued again. On a real one: tests/cluster."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import copying, scripts
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common.errors import StepFailed, Unreachable
from helpers.executors.slurm import jobs
from helpers.launcher import api
from slurm_double import SlurmDouble
from slurm_submissions import LOCAL, NOTICES, show, submission

HERE = Cluster(**LOCAL)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What would be noted in the launcher's job database."""
    noted: list[tuple[str, str]] = []
    monkeypatch.setattr(api, "record_resumed", lambda job, number: noted.append((job, number)))
    return noted


def row(index: int, job: str, state: str = "SUCCEEDED") -> dict[str, Any]:
    return {"index": index, "slurm_job_id": job, "state": state}


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- Coming home -------------------------------------------------------------------------------------------------------------------------


def test_of_a_task_all_comes_home_but_caches_secrets_and_our_record(tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    there, home = Path(one["jobs"][0]["remote_dir"]), Path(one["jobs"][0]["job_dir"])
    for name in (
        "artifacts/results.yml",
        "artifacts/cache/x",
        "artifacts/response_cache/x",
        "artifacts/x.db-wal",
        ".secrets.env",
        "logs/l",
    ):
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_text(name)
    jobs.fetch(one, [row(0, "1")])
    assert files_of(home) == [jobs.BROUGHT, "artifacts/results.yml", "logs/l"]
    assert not Path(one["jobs"][1]["job_dir"]).exists()


def test_what_is_home_is_not_asked_for_again_until_another_job_has_worked_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = submission(tmp_path, "a", "b")
    jobs.fetch(one, [row(0, "1")])
    asked: list[list[str]] = []
    monkeypatch.setattr(copying, "download", lambda _cluster, folders, *_, **__: asked.append(folders))
    jobs.fetch(one, [row(0, "1")])
    assert asked == []
    Path(one["jobs"][1]["job_dir"]).mkdir()
    jobs.fetch(one, [row(0, "1"), row(1, "2")])
    assert asked == [[one["jobs"][1]["remote_dir"]]]
    jobs.fetch(one, [row(0, "9"), row(1, "2")])
    assert asked[1:] == [[one["jobs"][0]["remote_dir"]]]


def test_what_was_brought_of_a_task_that_looked_failed_is_asked_for_again_when_it_succeeded(tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    jobs.fetch(one, [row(0, "1", "FAILED")])
    (Path(one["jobs"][0]["remote_dir"]) / "artifacts/results.yml").write_text("late")
    jobs.fetch(one, [row(0, "1", "FAILED")])
    assert "artifacts/results.yml" not in files_of(Path(one["jobs"][0]["job_dir"]))
    jobs.fetch(one, [row(0, "1")])
    assert "artifacts/results.yml" in files_of(Path(one["jobs"][0]["job_dir"]))


def test_what_did_not_come_home_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = submission(tmp_path, "a")

    def lost(*_: Any, **__: Any) -> None:
        raise Unreachable("lost")

    with monkeypatch.context() as patch:
        patch.setattr(copying, "download", lost)
        with pytest.raises(Unreachable):
            jobs.fetch(one, [row(0, "1")])
    (Path(one["jobs"][0]["remote_dir"]) / "logs/l").write_text("x")
    jobs.fetch(one, [row(0, "1")])
    assert "logs/l" in files_of(Path(one["jobs"][0]["job_dir"]))


# ---- Cancelling --------------------------------------------------------------------------------------------------------------------------


def names(one: dict[str, Any]) -> tuple[list[str], list[str]]:
    return [job["job_name"] for job in one["jobs"]], [job["remote_dir"] for job in one["jobs"]]


@pytest.mark.slow
def test_what_was_cancelled_is_reported_by_job_name_with_the_successors(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    show(slurm, one, 0, "RUNNING")
    slurm.job(12, "PENDING", one["jobs"][0]["job_name"], one["jobs"][0]["remote_dir"], reason="Dependency")
    show(slurm, one, 1, "COMPLETED")
    assert jobs.cancel(HERE, *names(one), 2) == {one["jobs"][0]["job_name"]: ["1", "12"]}
    assert jobs.cancel(HERE, *names(one), 2) == {}


def test_while_slurm_does_not_answer_nothing_is_said_to_be_cancelled(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(Unreachable, match=r"does not say which jobs exist \(slurm_load_jobs.*\): nothing was cancelled; try again"):
        jobs.cancel(HERE, *names(one), 2)


def test_jobs_that_would_not_go_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "run", lambda *_, **__: [Frame("cancelled", "7", b"n"), Frame("left", "-", b"7 8")])
    with pytest.raises(StepFailed, match="jobs 7 8 still exist a minute after scancel; run the same command again, or `scancel 7 8`"):
        jobs.cancel(HERE, ["n"], ["/r/n"], 2)


# ---- Queueing again ----------------------------------------------------------------------------------------------------------------------


def with_scripts(one: dict[str, Any]) -> dict[str, Any]:
    for job in one["jobs"]:
        (Path(job["remote_dir"]) / "run.sub").write_text(f"#!/bin/bash\n#SBATCH --job-name {job['job_name']}\n")
    return one


@pytest.mark.slow
def test_tasks_are_queued_again_by_their_index_and_noted_where_the_launcher_looks(
    slurm: SlurmDouble, tmp_path: Path, recorded: list[tuple[str, str]]
) -> None:
    one = with_scripts(submission(tmp_path, "a", "b", "c"))
    for index in range(3):
        show(slurm, one, index, "FAILED")
    assert jobs.resume(one, [2, 1]) == {1: "101", 2: "102"}
    assert recorded == [(f"{'0' * 16}.1", "101"), (f"{'0' * 16}.2", "102")]
    assert jobs.resume(one, [1]) == {1: "101"}, "it is in the queue"


def test_notices_around_the_answer_are_not_taken_for_the_new_job(
    slurm: SlurmDouble, tmp_path: Path, recorded: list[tuple[str, str]]
) -> None:
    one = with_scripts(submission(tmp_path, "a"))
    show(slurm, one, 0, "FAILED")
    slurm.answers_for("gaea")
    for command in ("sbatch", "squeue", "sacct"):
        slurm.greets(command, *NOTICES)
    assert jobs.resume(one, [0]) == {0: "101"}
    assert (Path(one["jobs"][0]["remote_dir"]) / ".submitted").read_text() == "1\n101\n"


def test_a_task_that_is_refused_is_named_and_those_before_it_are_queued(
    slurm: SlurmDouble, tmp_path: Path, recorded: list[tuple[str, str]]
) -> None:
    one = with_scripts(submission(tmp_path, "a", "b"))
    slurm.fault("sbatch", "sbatch: error: Invalid account", calls="2")
    with pytest.raises(
        StepFailed, match=r"b cannot be queued again: Invalid account; check account .*; fix that, then run the same command again"
    ):
        jobs.resume(one, [0, 1])
    assert recorded == [(f"{'0' * 16}.0", "101")]


def test_what_is_gone_on_the_cluster_is_named(slurm: SlurmDouble, tmp_path: Path, recorded: list[tuple[str, str]]) -> None:
    one = submission(tmp_path, "a")
    with pytest.raises(StepFailed, match=r"a cannot be queued again: .*/run\.sub was removed"):
        jobs.resume(one, [0])
    (tmp_path / "run").rename(tmp_path / "away")
    with pytest.raises(StepFailed, match=r"the run's folder cannot be queued again: .*/run was removed"):
        jobs.resume(one, [0])


def test_only_successors_that_wait_are_taken_out_of_the_queue(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    show(slurm, one, 0, "COMPLETED")
    show(slurm, one, 1, "RUNNING")
    for index, number in ((0, 11), (1, 12)):
        job = one["jobs"][index]
        slurm.job(number, "PENDING", job["job_name"], job["remote_dir"], reason="DependencyNeverSatisfied")
    jobs.tidy(one, [{**row(0, "1"), "waiting_successor": True}])
    assert {job["id"]: job["state"] for job in slurm.jobs()} == {1: "COMPLETED", 2: "RUNNING", 11: "CANCELLED", 12: "PENDING"}
    calls = len(slurm.calls())
    jobs.tidy(one, [])
    assert len(slurm.calls()) == calls, "with nothing to do nothing is asked"


# ---- The queue ---------------------------------------------------------------------------------------------------------------------------


def test_the_queue_shows_ours_first_and_marked_with_reasons_in_words(
    slurm: SlurmDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.job(5, "RUNNING", "theirs", tmp_path, elapsed="1:00")
    slurm.job(6, "PENDING", "mine", tmp_path, user=getpass.getuser(), reason="Resources", start="2026-11-25T01:00:00")
    slurm.job(7, "COMPLETED", "done", tmp_path)
    slurm.greets("squeue", *NOTICES)
    jobs.show_queue(HERE, "batch")
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "2 jobs in batch of this login node"
    assert [line.split()[:2] for line in rows] == [["ours", "6"], ["5", "somebody"]]
    assert "2026-11-25T01:00:00" in rows[0]
    assert rows[0].endswith("Resources: insufficient available nodes: waiting until enough are free")
    assert "--partition=batch" in slurm.calls("squeue")[0]


def test_of_a_long_queue_the_first_are_shown_and_all_counted(
    slurm: SlurmDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5, 12):
        slurm.job(number, "PENDING", "theirs", tmp_path)
    jobs.show_queue(HERE, "", most=3)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "7 jobs in all partitions of this login node"
    assert len(shown.out.splitlines()) == 2 + 3
    assert "only the first 3 are shown" in shown.err
    assert "--partition" not in slurm.calls("squeue")[0]


def test_a_queue_that_does_not_answer_is_no_empty_queue(slurm: SlurmDouble, tmp_path: Path) -> None:
    slurm.fault("squeue", "slurm_load_jobs error: Invalid partition specified")
    with pytest.raises(Unreachable, match=r"squeue on this login node does not answer \(.*Invalid partition specified"):
        jobs.show_queue(HERE, "nosuch")
