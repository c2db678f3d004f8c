"""From what a cluster answers to rows of status.json. The answers are of a double of Slurm; on a real one: tests/cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from helpers import files, slurm_asking, status
from helpers.errors import Unreachable
from local_jobs import SCORES
from slurm_double import SlurmDouble

LOCAL = {"host": "here", "user": None, "port": None, "identity": None, "tunnel": "local"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmDouble:
    double = SlurmDouble(tmp_path / "double")
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    return double


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


def test_a_row_says_state_reason_progress_elapsed_and_log(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    show(slurm, one, 0, "RUNNING", elapsed="1:05")
    show(slurm, one, 1, "PENDING", reason="Priority", start="2026-11-25T01:00:00")
    there = Path(one["jobs"][0]["remote_dir"])
    (there / "artifacts/progress").write_text("3")
    (there / "logs/client-1.log").write_text("asking\n")
    first, second = status.ask(one)["jobs"]
    files.write_json(tmp_path / "status.json", status.ask(one), "status")
    assert (first["state"], first["reason"], first["requests_done"], first["requests_total"], first["seconds"]) == ("RUNNING", "", 3, 7, 65)
    assert first["log"] == f"{there}/logs/client-1.log"
    assert (second["state"], second["expected_start"], second["log"]) == ("PENDING", "2026-11-25T01:00:00", None)
    assert second["reason"].startswith("Priority: waiting for resources")


def test_success_needs_a_score_in_results_yml_whatever_slurm_says(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b", "c")
    for index in range(3):
        show(slurm, one, index, "COMPLETED", exit="0:0")
    (Path(one["jobs"][0]["remote_dir"]) / "artifacts/results.yml").write_text(SCORES)
    (Path(one["jobs"][1]["remote_dir"]) / "artifacts/results.yml").write_text("results: {tas")
    assert [row["state"] for row in status.ask(one)["jobs"]] == ["SUCCEEDED", "FAILED", "FAILED"]


def test_two_runs_of_a_cluster_are_asked_at_once_and_each_gets_its_own_rows(slurm: SlurmDouble, tmp_path: Path) -> None:
    one, other = submission(tmp_path, "a", run="one"), submission(tmp_path, "a", run="other")
    other["jobs"][0]["slurm_job_id"] = "2"
    (Path(other["jobs"][0]["remote_dir"]) / ".submitted").write_text("2\n")
    show(slurm, one, 0, "RUNNING")
    show(slurm, other, 0, "CANCELLED")
    found, failures = status.ask_all([one, files.seal_json(other)])
    assert [seen["jobs"][0]["state"] for seen in found] == ["RUNNING", "CANCELLED"]
    assert not failures
    assert len(slurm.calls("squeue")) == 1


def test_a_job_of_the_same_name_in_another_folder_is_none_of_ours(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "RUNNING")
    slurm.job(9, "FAILED", one["jobs"][0]["job_name"], tmp_path / "elsewhere")
    (row,) = status.ask(one)["jobs"]
    assert (row["state"], row["slurm_job_id"]) == ("RUNNING", "1")


def test_what_could_not_be_asked_is_said_and_what_was_seen_before_stays(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "FAILED", exit="1:0")
    question = slurm_asking.ask(slurm_asking.Cluster(**LOCAL), [one])
    assert question.rows(0)[0]["state"] == "FAILED"
    slurm.fault("sacct", "sacct: error: Problem talking to the database")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    again = slurm_asking.ask(slurm_asking.Cluster(**LOCAL), [one])
    assert again.rows(0)[0]["state"] == "UNKNOWN"
    assert [text.partition(" (")[0] for text in again.asked.problems] == ["squeue could not be asked", "accounting could not be asked"]


def test_a_cluster_that_cannot_be_reached_leaves_its_jobs_unreachable_and_the_others_as_they_are(
    slurm: SlurmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = submission(tmp_path, "a", run="here")
    away = submission(tmp_path, "a", run="away", cluster={**LOCAL, "host": "no-such-host.invalid", "tunnel": "ssh"})
    show(slurm, here, 0, "RUNNING")
    monkeypatch.setattr(slurm_asking.remote, "open_connection", _refuse)
    found, failures = status.ask_all([away, here])
    assert [seen["jobs"][0]["state"] for seen in found] == ["UNREACHABLE", "RUNNING"]
    assert [str(one) for one in failures] == ["not there"]
    assert not status.is_over(found[0])


def _refuse(*_: object) -> None:
    raise Unreachable("not there")
