"""helpers/executors/slurm/verdict.py: the state of a task from its jobs, whatever Slurm says or fails to say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster.slurm_words import AT_WORK, WAITING
from helpers.executors import states
from helpers.executors.slurm import verdict as slurm_verdict
from helpers.executors.slurm.verdict import ENDED, Job, Seen, Sources, jobs_of, judge

ALL = Sources(queue=True, accounting=True, disabled=False)
DISABLED = Sources(queue=True, accounting=False, disabled=True)
NO_ACCOUNTING = Sources(queue=True, accounting=False, disabled=False)
NO_QUEUE = Sources(queue=False, accounting=True, disabled=False)
NOTHING = Sources(queue=False, accounting=False, disabled=False)

# squeue's man page, JOB STATE CODES (22.05), and what is said of a task whose only job is in that state.
STATES = {
    "BOOT_FAIL": "NODE_FAILED",
    "CANCELLED": "CANCELLED",
    "COMPLETED": "SUCCEEDED",
    "CONFIGURING": "PENDING",
    "COMPLETING": "RUNNING",
    "DEADLINE": "TIMED_OUT",
    "FAILED": "FAILED",
    "NODE_FAIL": "NODE_FAILED",
    "OUT_OF_MEMORY": "OUT_OF_MEMORY",
    "PENDING": "PENDING",
    "PREEMPTED": "PREEMPTED",
    "RUNNING": "RUNNING",
    "RESV_DEL_HOLD": "PENDING",
    "REQUEUE_FED": "PENDING",
    "REQUEUE_HOLD": "PENDING",
    "REQUEUED": "PENDING",
    "RESIZING": "RUNNING",
    "REVOKED": "CANCELLED",
    "SIGNALING": "RUNNING",
    "SPECIAL_EXIT": "PENDING",
    "STAGE_OUT": "RUNNING",
    "STOPPED": "RUNNING",
    "SUSPENDED": "RUNNING",
    "TIMEOUT": "TIMED_OUT",
}


def job(number: int, state: str, reason: str = "None", **fields: Any) -> Job:
    return Job(number, state, reason, **fields)


def waiting(number: int, reason: str = "Dependency") -> Job:
    """A successor that waits for the job before it."""
    return Job(number, "PENDING", reason, waits_for_another=True)


def seen(*jobs: Job, first: int | None = 5, scores: int | None = None, **fields: Any) -> Seen:
    return Seen(first=first, jobs={one.id: one for one in jobs}, has_results=scores is not None, scores=scores, **fields)


@pytest.mark.parametrize(("slurms", "ours"), STATES.items())
def test_each_state_of_slurm_has_one_of_ours(slurms: str, ours: str) -> None:
    verdict = judge(seen(job(5, slurms), scores=1 if slurms == "COMPLETED" else None), ALL)
    assert verdict.state == ours
    assert verdict.job
    assert verdict.job.id == 5
    assert (verdict.attempt, verdict.chain) == (1, (5,))


def test_the_states_are_all_of_slurm_s_and_each_is_in_one_set() -> None:
    assert set(STATES) == {*ENDED, *WAITING, *AT_WORK}
    assert len(STATES) == len(ENDED) + len(WAITING) + len(AT_WORK)
    assert set(ENDED.values()) == states.ENDED


def test_a_state_that_nobody_knows_is_no_end() -> None:
    verdict = judge(seen(job(5, "LEVITATING")), ALL)
    assert (verdict.state, verdict.reason) == ("UNKNOWN", "Slurm reports job 5 as LEVITATING")


# name: what was seen, how it was asked, the state, words of the reason, the job that it is of, the attempt.
CHAINS: dict[str, tuple[Seen, Sources, str, str, int | None, int]] = {
    # One job.
    "running": (seen(job(5, "RUNNING"), logs={"client": "c"}), ALL, "RUNNING", "", 5, 1),
    "running without logs": (seen(job(5, "RUNNING")), ALL, "RUNNING", "starting", 5, 1),
    "running with a server": (seen(job(5, "RUNNING"), logs={"server": "s"}), ALL, "RUNNING", "waiting for the model server", 5, 1),
    "suspended": (seen(job(5, "SUSPENDED"), logs={"client": "c"}), ALL, "RUNNING", "suspended by Slurm", 5, 1),
    "running, its successor waits": (seen(job(5, "RUNNING"), waiting(6)), ALL, "RUNNING", "starting", 5, 1),
    "completing with results": (seen(job(5, "COMPLETING"), scores=1), ALL, "RUNNING", "starting", 5, 1),
    "completed": (seen(job(5, "COMPLETED"), scores=3), ALL, "SUCCEEDED", "", 5, 1),
    "completed without results": (seen(job(5, "COMPLETED")), ALL, "FAILED", "the job ended without results.yml", 5, 1),
    "completed without scores": (seen(job(5, "COMPLETED"), scores=0), ALL, "FAILED", "results.yml holds no score", 5, 1),
    "completed, files late": (seen(job(5, "COMPLETED"), late=True), ALL, "RUNNING", "not on the login node's filesystem yet", 5, 1),
    "completed, late, no scores": (seen(job(5, "COMPLETED"), scores=0, late=True), ALL, "FAILED", "results.yml holds no score", 5, 1),
    "failed": (seen(job(5, "FAILED")), ALL, "FAILED", "", 5, 1),
    "failed with scores": (seen(job(5, "FAILED"), scores=2), ALL, "FAILED", "", 5, 1),
    "failed for a step's memory": (seen(job(5, "FAILED", ran_out_of_memory=True)), ALL, "OUT_OF_MEMORY", "more memory than it had", 5, 1),
    # Successors of a job that ended for good.
    "failed, its successor is about to see it": (seen(job(5, "FAILED"), waiting(6)), ALL, "FAILED", "", 5, 1),
    "failed, its successor is queued": (seen(job(5, "FAILED"), job(6, "PENDING", "Priority")), ALL, "FAILED", "", 5, 1),
    "failed, its successor runs": (seen(job(5, "FAILED"), job(6, "RUNNING")), ALL, "FAILED", "", 5, 1),
    "failed, its successor saw it": (seen(job(5, "FAILED", exit_code=1), job(6, "FAILED", exit_code=1)), ALL, "FAILED", "", 5, 1),
    "cancelled, its successor saw it": (seen(job(5, "CANCELLED"), job(6, "FAILED")), ALL, "CANCELLED", "", 5, 1),
    "cancelled with its successor": (seen(job(5, "CANCELLED"), job(6, "CANCELLED")), ALL, "CANCELLED", "", 5, 1),
    "out of memory, its successor saw it": (seen(job(5, "OUT_OF_MEMORY"), job(6, "FAILED")), ALL, "OUT_OF_MEMORY", "", 5, 1),
    "completed, its successor is left": (
        seen(job(5, "COMPLETED"), waiting(6, "DependencyNeverSatisfied"), scores=1), ALL, "SUCCEEDED", "", 5, 1,
    ),
    "completed, its successor was cancelled": (seen(job(5, "COMPLETED"), job(6, "CANCELLED"), scores=1), ALL, "SUCCEEDED", "", 5, 1),
    # Chains that go on.
    "timeout, successor waits": (seen(job(5, "TIMEOUT"), waiting(6)), ALL, "RESUMING", "its successor resumes the task", 5, 1),
    "timeout, successor queued": (seen(job(5, "TIMEOUT"), job(6, "PENDING", "Priority")), ALL, "RESUMING", "Priority: waiting", 6, 2),
    "timeout, successor runs": (seen(job(5, "TIMEOUT"), job(6, "RUNNING"), waiting(7), logs={"client": "c"}), ALL, "RUNNING", "", 6, 2),
    "timeout, successor done": (seen(job(5, "TIMEOUT"), job(6, "COMPLETED"), scores=1), ALL, "SUCCEEDED", "", 6, 2),
    "timeout, successor failed": (seen(job(5, "TIMEOUT"), job(6, "FAILED"), job(7, "FAILED")), ALL, "FAILED", "", 6, 2),
    "timeout, successor cancelled": (seen(job(5, "TIMEOUT"), job(6, "CANCELLED")), ALL, "CANCELLED", "", 6, 2),
    "timeout thrice": (seen(job(5, "TIMEOUT"), job(6, "TIMEOUT"), job(7, "TIMEOUT"), waiting(8)), ALL, "RESUMING", "job 7 ended", 7, 3),
    "timeout of the whole chain: max_walltime": (seen(job(5, "TIMEOUT"), job(6, "FAILED", exit_code=1)), ALL, "FAILED", "", 6, 2),
    "timeout, no successor": (seen(job(5, "TIMEOUT")), ALL, "TIMED_OUT", "", 5, 1),
    "preempted, successor waits": (seen(job(5, "PREEMPTED"), waiting(6)), ALL, "RESUMING", "job 5 ended PREEMPTED", 5, 1),
    "preempted, successor runs": (seen(job(5, "PREEMPTED"), job(6, "RUNNING")), ALL, "RUNNING", "starting", 6, 2),
    "preempted before it had one": (seen(job(5, "PREEMPTED")), ALL, "PREEMPTED", "", 5, 1),
    "node failed, successor runs": (seen(job(5, "NODE_FAIL"), job(6, "RUNNING")), ALL, "RUNNING", "starting", 6, 2),
    "requeued with the same id": (seen(job(5, "PENDING", "BeginTime")), ALL, "PENDING", "BeginTime: its earliest start", 5, 1),
    "requeued and held": (seen(job(5, "REQUEUE_HOLD", "launch failed requeued held")), ALL, "PENDING", "its node could not start it", 5, 1),
    # Without accounting no job is ever resumed: the successor asks it, hears nothing, and exits.
    "timeout, disabled": (seen(job(5, "TIMEOUT"), waiting(6)), DISABLED, "TIMED_OUT", "", 5, 1),
    "timeout, disabled, successor exited": (seen(job(5, "TIMEOUT"), job(6, "FAILED")), DISABLED, "TIMED_OUT", "", 5, 1),
    "preempted, disabled": (seen(job(5, "PREEMPTED")), DISABLED, "PREEMPTED", "", 5, 1),
    "preempted, accounting silent": (seen(job(5, "PREEMPTED")), NO_ACCOUNTING, "UNKNOWN", "whether its successor resumed is unknown", 5, 1),
    "timeout, accounting silent": (seen(job(5, "TIMEOUT")), NO_ACCOUNTING, "UNKNOWN", "whether its successor resumed is unknown", 5, 1),
    "timeout, accounting silent, successor waits": (seen(job(5, "TIMEOUT"), waiting(6)), NO_ACCOUNTING, "RESUMING", "resumes", 5, 1),
    "failed, accounting silent": (seen(job(5, "FAILED")), NO_ACCOUNTING, "FAILED", "", 5, 1),
    "completed, accounting silent": (seen(job(5, "COMPLETED"), scores=1), NO_ACCOUNTING, "SUCCEEDED", "", 5, 1),
    # squeue does not answer: what accounting has still counts.
    "completed, squeue silent": (seen(job(5, "COMPLETED"), scores=1), NO_QUEUE, "SUCCEEDED", "", 5, 1),
    "running by accounting, squeue silent": (seen(job(5, "RUNNING"), logs={"client": "c"}), NO_QUEUE, "RUNNING", "", 5, 1),
    "no job, squeue silent": (seen(), NO_QUEUE, "UNKNOWN", "squeue did not answer", None, 1),
    "no job, nothing answers": (seen(), NOTHING, "UNKNOWN", "squeue did not answer", None, 1),
    "results, nothing answers": (seen(scores=1), NOTHING, "SUCCEEDED", "", None, 1),
    # Jobs that Slurm knows no more.
    "purged with results": (seen(scores=1, ids=[5]), ALL, "SUCCEEDED", "", None, 1),
    "purged without results": (seen(ids=[5, 6]), ALL, "FAILED", "Slurm no longer knows job 6 (accounting does not have it)", None, 1),
    "purged, disabled": (seen(), DISABLED, "FAILED", "no longer knows job 5 (accounting is disabled), and it left no results", None, 1),
    "purged, accounting silent": (
        seen(), NO_ACCOUNTING, "UNKNOWN", "squeue no longer shows job 5, and accounting did not answer", None, 1),
    "purged, folder gone": (seen(folder_missing=True), ALL, "FAILED", "its folder on the cluster was removed", None, 1),
    "purged, its successor waits": (seen(waiting(6)), DISABLED, "PENDING", "waiting for the job before it to end", 6, 1),
    "purged, its successor is left": (seen(waiting(6, "DependencyNeverSatisfied")), DISABLED, "FAILED", "left no results", 6, 1),
    "purged with results, its successor is left": (
        seen(waiting(6, "DependencyNeverSatisfied"), scores=1), DISABLED, "SUCCEEDED", "", 6, 1,
    ),
    "purged with results, its successor was taken out": (seen(job(6, "CANCELLED"), scores=1, ids=[5]), DISABLED, "SUCCEEDED", "", None, 1),
    "purged, its successor was taken out": (seen(job(6, "CANCELLED"), ids=[5]), DISABLED, "FAILED", "it left no results", None, 1),
    "purged, cancelled by us": (seen(job(6, "CANCELLED"), ids=[5], cancelled=True), DISABLED, "CANCELLED", "", None, 1),
    "purged, its successor began and was cancelled": (seen(job(6, "CANCELLED", seconds=9.0)), DISABLED, "CANCELLED", "", 6, 1),
    # Queued again by `make resume`: what came before does not count.
    "resumed": (seen(job(5, "FAILED"), job(6, "FAILED"), job(9, "PENDING", "Resources"), first=9), ALL, "PENDING", "Resources", 9, 1),
    "resumed and done": (seen(job(5, "TIMEOUT"), job(9, "COMPLETED"), first=9, scores=1), ALL, "SUCCEEDED", "", 9, 1),
    "resumed, and not shown yet": (seen(job(5, "FAILED"), first=9), NO_ACCOUNTING, "UNKNOWN", "squeue no longer shows job 9", None, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_the_verdict_over_a_chain_of_jobs(name: str) -> None:
    was, asked, state, reason, number, attempt = CHAINS[name]
    verdict = judge(was, asked)
    assert verdict.state == state
    assert reason in verdict.reason if reason else not verdict.reason
    assert (verdict.job.id if verdict.job else None) == number
    assert verdict.attempt == attempt
    if number and was.jobs[number].state != "PENDING":
        assert verdict.chain[-1] == number
        assert len(verdict.chain) == attempt


def test_the_chain_is_what_started_and_neither_who_waits_nor_who_only_looked() -> None:
    assert judge(seen(job(5, "TIMEOUT"), job(6, "RUNNING"), waiting(7)), ALL).chain == (5, 6)
    assert judge(seen(job(5, "FAILED"), job(6, "FAILED")), ALL).chain == (5,)
    assert judge(seen(ids=[5, 6]), ALL).chain == (5, 6)


# ---- What squeue and sacct print ---------------------------------------------------------------------------------------------------------


QUEUE = """\
slurm_load_jobs error: this line is none
| a | banner | with | as | many | bars | as | a | row |
10298|RUNNING|2026-11-24T09:05:41|1:35|(null)|/bed/jobs/r/a.0|run.a.0|None
10299|PENDING|N/A|0:00|afternotok:10298(unfulfilled)|/bed/jobs/r/a.0|run.a.0|Dependency
10300|PENDING|2026-11-24T12:00:00|0:00||/bed/jobs/r/b.1|run.b.1|ReqNodeNotAvail, UnavailableNodes:n1
10301|COMPLETED|2026-11-24T09:01:00|0:42|(null)|/bed/jobs/r/c.2|run.c.2|None
10302|FAILED|2026-11-24T09:01:00|0:02|(null)|/bed/jobs/r/d.3|run.d.3|NonZeroExitCode
10303_1|RUNNING|2026-11-24T09:01:00|0:02|(null)|/bed/jobs/r/d.3|run.d.3|None
10304|RUNNING|2026-11-24T09:01:00|0:02|(null)|/elsewhere|somebody-else|None
10305|RUNNING|torn li"""
ACCOUNT = """\
sacct: error: slurm_persist_conn_open: a warning in between
10298|RUNNING|0:0|90|2026-11-24T09:05:41|/bed/jobs/r/a.0|run.a.0
10301|COMPLETED|0:0|43|2026-11-24T09:01:00|/bed/jobs/r/c.2|run.c.2
10301.batch|COMPLETED|0:0|43|2026-11-24T09:01:00||batch
10302|FAILED|2:0|3|2026-11-24T09:01:00|/bed/jobs/r/d.3|run.d.3
10302.batch|FAILED|2:0|3|2026-11-24T09:01:00||batch
10302.0|OUT_OF_MEMORY|0:125|3|2026-11-24T09:01:00||bash
9000|CANCELLED by 1000|0:15|7|2026-11-24T08:00:00|/bed/jobs/r/b.1|run.b.1
9001|PENDING|0:0|0|Unknown|/bed/jobs/r/b.1|run.b.1
9002|FAILED|1:0|1|2026-11-24T08:00:00|/elsewhere|somebody-else

torn|li"""
WANTED = {"run.a.0", "run.b.1", "run.c.2", "run.d.3", "run.e.4"}


def test_jobs_are_read_from_squeue_and_sacct_with_what_else_they_print_left_out() -> None:
    found = jobs_of(QUEUE, ACCOUNT, {}, WANTED)
    assert {name: sorted(jobs) for name, jobs in found.items()} == {
        "run.a.0": [10298, 10299],
        "run.b.1": [9000, 9001, 10300],
        "run.c.2": [10301],
        "run.d.3": [10302],
    }
    running, folder = found["run.a.0"][10298]
    assert folder == "/bed/jobs/r/a.0"
    assert running == Job(10298, "RUNNING", "None", "2026-11-24T09:05:41", 95.0), "squeue is younger than accounting while a job runs"
    successor = found["run.a.0"][10299][0]
    assert successor.waits_for_another
    assert successor.start is None
    pending = found["run.b.1"][10300][0]
    assert (pending.waits_for_another, pending.start) == (False, "2026-11-24T12:00:00")
    assert pending.reason == "ReqNodeNotAvail, UnavailableNodes:n1"
    cancelled = found["run.b.1"][9000][0]
    assert (cancelled.state, cancelled.exit_code, cancelled.seconds) == ("CANCELLED", 143, 7.0)
    assert found["run.b.1"][9001][0].start is None


def test_of_a_job_that_has_ended_accounting_has_the_exit_code_and_a_step_s_memory() -> None:
    found = jobs_of(QUEUE, ACCOUNT, {}, WANTED)
    done, failed = found["run.c.2"][10301][0], found["run.d.3"][10302][0]
    assert (done.state, done.exit_code, done.seconds, done.ran_out_of_memory) == ("COMPLETED", 0, 43.0, False)
    assert (failed.state, failed.exit_code, failed.ran_out_of_memory) == ("FAILED", 2, True)


def test_what_is_alive_in_the_queue_is_alive_whatever_accounting_says() -> None:
    """A requeued job: accounting may still have its first end."""
    queue = "7|PENDING|N/A|0:00|(null)|/f|n|BeginTime\n"
    account = "7|PREEMPTED|0:0|30|2026-11-24T09:01:00|/f|n\n"
    assert jobs_of(queue, account, {}, {"n"})["n"][7][0].state == "PENDING"
    ended = "7|PREEMPTED|2026-11-24T09:01:00|0:30|(null)|/f|n|None\n"
    assert jobs_of(ended, "7|RUNNING|0:0|29|2026-11-24T09:01:00|/f|n\n", {}, {"n"})["n"][7][0].state == "PREEMPTED", (
        "accounting lags behind"
    )


def test_without_accounting_the_controller_has_the_exit_code() -> None:
    told = "JobId=10302 JobName=run.d.3 UserId=ann(1000) JobState=FAILED Reason=NonZeroExitCode Requeue=0 ExitCode=3:0 DerivedExitCode=0:0"
    found = jobs_of(QUEUE, "Slurm accounting storage is disabled\n", {10302: told, 10301: ""}, WANTED)
    assert found["run.d.3"][10302][0].exit_code == 3
    assert found["run.c.2"][10301][0].exit_code is None


def test_a_folder_that_accounting_does_not_have_is_squeue_s() -> None:
    queue = "7|FAILED|2026-11-24T09:01:00|0:30|(null)|/f|n|None\n"
    assert jobs_of(queue, "7|FAILED|1:0|30|2026-11-24T09:01:00||n\n", {}, {"n"})["n"][7][1] == "/f"


def test_a_row_says_the_job_the_chain_and_when_it_is_expected_to_start() -> None:
    pending = judge(seen(job(5, "PENDING", "Priority", start="2026-11-24T12:00:00")), ALL)
    assert slurm_verdict.document_fields(pending, seen()) == {
        "slurm_job_id": "5",
        "chain": ["5"],
        "expected_start": "2026-11-24T12:00:00",
        "waiting_successor": False,
    }
    resumed = judge(seen(job(5, "TIMEOUT"), job(6, "RUNNING", start="2026-11-24T12:00:00")), ALL)
    assert slurm_verdict.document_fields(resumed, seen())["chain"] == ["5", "6"]
    assert slurm_verdict.document_fields(judge(seen(ids=[5]), ALL), seen())["slurm_job_id"] is None


def test_the_launcher_resumes_after_the_states_that_we_take_for_resumed() -> None:
    from nemo_evaluator_launcher.executors.slurm import executor

    handler = executor._generate_autoresume_handler(Path("/d"), None)
    assert set(re.findall(r"_prev_state == '([A-Z_]+)'", handler)) - {"COMPLETED"} == slurm_verdict.RESUMED
    assert "--dependency=afternotok:$SLURM_JOB_ID" in handler
