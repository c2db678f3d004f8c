"""From what a cluster answers to rows of status.json. The answers are of a double of Slurm; on a real one: tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint import SHAPES
from helpers.cluster import connection, scripts
from helpers.common import files
from helpers.common.errors import Unreachable
from helpers.executors import states, submissions
from helpers.executors.slurm import asking
from helpers.steps import status
from local_jobs import SCORES, kept
from slurm_double import SlurmDouble
from slurm_submissions import LOCAL, show, submission


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


def test_a_score_over_answers_that_carry_nothing_is_no_success(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "none", "some")
    folders = [Path(job["remote_dir"]) for job in one["jobs"]]
    for index, folder in enumerate(folders):
        show(slurm, one, index, "COMPLETED", exit="0:0")
        (folder / "artifacts/results.yml").write_text(SCORES)
        (folder / "logs/client-1.log").write_text("done\n")
    kept(folders[0] / "artifacts", SHAPES["null"], SHAPES["null"])
    kept(folders[1] / "artifacts", SHAPES["null"], SHAPES["parts"])
    seen = status.ask(one)
    files.write_json(tmp_path / "status.json", seen, "status")
    first, second = seen["jobs"]
    assert (first["state"], second["state"]) == ("FAILED", "SUCCEEDED")
    assert first["reason"].startswith("there is nothing to score: 2 of 2 answers were empty; ")
    assert (second["answers"]["seen"], second["answers"]["empty"]) == (2, 1)
    assert len(slurm.calls("squeue")) == 1


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


def test_what_did_not_answer_is_reported_and_what_was_seen_before_stays(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "FAILED", exit="1:0")
    question = asking.ask(asking.Cluster(**LOCAL), [one])
    assert question.rows(0)[0]["state"] == "FAILED"
    slurm.fault("sacct", "sacct: error: Problem talking to the database")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    again = asking.ask(asking.Cluster(**LOCAL), [one])
    assert again.rows(0)[0]["state"] == "UNKNOWN"
    assert [text.partition(" (")[0] for text in again.sources.problems] == ["squeue did not answer", "accounting did not answer"]


def test_a_cluster_that_cannot_be_reached_leaves_its_jobs_unreachable_and_the_others_as_they_are(
    slurm: SlurmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = submission(tmp_path, "a", run="here")
    away = submission(tmp_path, "a", run="away", cluster={**LOCAL, "host": "no-such-host.invalid", "tunnel": "ssh"})
    show(slurm, here, 0, "RUNNING")
    monkeypatch.setattr(connection, "open_connection", _refuse)
    found, failures = status.ask_all([away, here])
    assert [seen["jobs"][0]["state"] for seen in found] == ["UNREACHABLE", "RUNNING"]
    assert [str(one) for one in failures] == ["not there"]
    assert not states.is_over(found[0]["jobs"])


def test_rows_of_a_cluster_that_did_not_answer_fit_the_schema_and_know_nothing(tmp_path: Path) -> None:
    one = submission(tmp_path, "a", "b")
    rows = submissions.unreachable_rows(one, "no route")
    assert [(row["state"], row["reason"], row["task"]) for row in rows] == [
        ("UNREACHABLE", "no route", "a"),
        ("UNREACHABLE", "no route", "b"),
    ]
    document = {"made_by": "t", "made_from": {}, "asked_at": "2026-11-22T01:02:03Z", "invocation_id": "0" * 16, "jobs": rows}
    files.write_json(tmp_path / "status.json", document, "status")


@pytest.mark.parametrize("successor", [False, True], ids=["alone", "its unused successor waits for a node"])
def test_a_failed_task_has_its_cause_its_lines_of_trouble_and_the_log_that_tells(
    slurm: SlurmDouble, tmp_path: Path, successor: bool
) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "FAILED", exit="1:0")
    if successor:
        slurm.job(2, "PENDING", one["jobs"][0]["job_name"], one["jobs"][0]["remote_dir"], reason="Resources")
    logs = Path(one["jobs"][0]["remote_dir"]) / "logs"
    (logs / "slurm-1.log").write_text("server process 77 died\n")
    (logs / "server-1.log").write_text("Loading\nRuntimeError: no such model\n")
    (row,) = status.ask(one)["jobs"]
    assert row["state"] == "FAILED"
    assert row["reason"].startswith("the model server died before it was ready; exit code 1; ")
    assert (row["exit_code"], row["errors"], row["log"]) == (1, ["RuntimeError: no such model"], f"{logs}/server-1.log")


def test_the_job_that_was_submitted_last_counts_whatever_the_submission_says(slurm: SlurmDouble, tmp_path: Path) -> None:
    """`make resume` queues a task again; submission.json is as it was."""
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "FAILED", exit="1:0")
    slurm.job(8, "RUNNING", one["jobs"][0]["job_name"], one["jobs"][0]["remote_dir"])
    assert status.ask(one)["jobs"][0]["state"] == "FAILED"
    (Path(one["jobs"][0]["remote_dir"]) / ".submitted").write_text("1\n8\n")
    (row,) = status.ask(one)["jobs"]
    assert (row["state"], row["slurm_job_id"], row["chain"]) == ("RUNNING", "8", ["8"])


def test_without_a_limit_the_number_of_samples_is_what_the_harness_wrote_down(slurm: SlurmDouble, tmp_path: Path) -> None:
    one = submission(tmp_path, "a")
    one["jobs"][0]["samples"] = None
    show(slurm, one, 0, "RUNNING")
    home = Path(one["jobs"][0]["job_dir"]) / "artifacts"
    assert status.ask(one)["jobs"][0]["requests_total"] is None
    home.mkdir(parents=True)
    (home / "total").write_text("12")
    assert status.ask(one)["jobs"][0]["requests_total"] == 12


@pytest.mark.parametrize(
    ("command", "code", "text", "problem"),
    [
        (
            "squeue",
            1,
            "noise\nslurm_load_jobs error: Unable to contact",
            "squeue did not answer (slurm_load_jobs error: Unable to contact)",
        ),
        ("squeue", 124, "", "squeue did not answer (no answer within 25 s)"),
        ("squeue", 137, "", "squeue did not answer (no answer within 25 s)"),
        ("squeue", 3, "", "squeue did not answer (exit code 3)"),
        ("sacct", 1, "sacct: error: Problem talking to the database", "accounting did not answer (sacct: error: Problem talking"),
        ("sacct", 1, "Slurm accounting storage is disabled", "accounting is disabled on this cluster"),
    ],
)
def test_what_did_not_answer_is_one_sentence(slurm: SlurmDouble, tmp_path: Path, command: str, code: int, text: str, problem: str) -> None:
    one = submission(tmp_path, "a")
    show(slurm, one, 0, "RUNNING")
    slurm.fault(command, text, code)
    (told,) = status.ask(one)["not_asked"]
    assert told.startswith(problem)


@pytest.mark.slow
def test_an_end_that_was_seen_stays_seen_while_slurm_does_not_answer(slurm: SlurmDouble, tmp_path: Path) -> None:
    """In one session: what was at work is not known any more, what had ended has ended."""
    one = submission(tmp_path, "a", "b")
    show(slurm, one, 0, "CANCELLED", exit="0:15")
    show(slurm, one, 1, "RUNNING")
    cluster = asking.Cluster(**LOCAL)
    question = asking.ask(cluster, [one])
    for command in ("squeue", "sacct"):
        slurm.fault(command, "does not answer")
    question.take(scripts.run(cluster, scripts.script("executors/slurm/asking.sh", **question.values())))
    assert [row["state"] for row in question.rows(0)] == ["CANCELLED", "UNKNOWN"]


def test_what_is_asked_reaches_back_to_the_oldest_of_the_submissions(tmp_path: Path) -> None:
    one, other = submission(tmp_path, "a", run="one"), submission(tmp_path, "a", "b", run="other")
    question = asking.Question(asking.Cluster(**LOCAL), [{**one, "submitted_at": "2020-01-01T00:00:00Z"}, other])
    values = question.values()
    assert values["KEYS"] == ["0.0", "1.0", "1.1"]
    assert values["NAMES"] == ["acc-one.a.0", "acc-other.a.0", "acc-other.b.1"]
    assert values["DAYS"] > 365 * 5


def _refuse(*_: object) -> None:
    raise Unreachable("not there")


def test_a_job_that_only_accounting_still_calls_running_is_not_waited_for(slurm: SlurmDouble, tmp_path: Path) -> None:
    """Slurm's "runaway jobs": accounting was away when the job ended, and the controller has forgotten it since."""
    one = submission(tmp_path, "a", "b")
    for index in range(2):
        show(slurm, one, index, "RUNNING")
    (Path(one["jobs"][0]["remote_dir"]) / "artifacts/results.yml").write_text(SCORES)
    assert [row["state"] for row in status.ask(one)["jobs"]] == ["RUNNING", "RUNNING"]
    slurm.fault("squeue", "", code=0)
    assert [row["state"] for row in status.ask(one)["jobs"]] == ["SUCCEEDED", "FAILED"]
