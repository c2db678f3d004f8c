"""helpers/cluster/slurm_words.py: what Slurm's words mean."""

from __future__ import annotations

import pytest

from helpers.cluster import slurm_words

# ---- Why a job waits -------------------------------------------------------------------------------------------------------------------


SENTENCES = {
    "Priority": "waiting for resources",
    "Resources": "insufficient available nodes",
    "QOSMaxJobsPerUserLimit": "user job limit reached",
    "QOSMaxSubmitJobPerUserLimit": "submit no more jobs",
    "QOSMaxGRESPerUser": "no more GPUs at once",
    "QOSGrpGRES": "all GPUs of the QOS are in use",
    "QOSMaxWallDurationPerJobLimit": "over the QOS's limit: it will not start; lower time",
    "AssocGrpGRES": "as many GPUs as it may",
    "AssocGrpGRESMinutes": "used up its GPU hours",
    "AssocGrpCPUMinutesLimit": "used up its CPU hours",
    "AssocMaxJobsLimit": "run no more jobs at once",
    "ReqNodeNotAvail": "down, drained or reserved",
    "Reservation": "waiting for its reservation",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "over the partition's limit: it will not start",
    "PartitionNodeLimit": "more nodes than the partition has",
    "AccountNotAllowed": "not open to the account",
    "BadConstraints": "no node has what it asks for",
    "BeginTime": "earliest start is still to come",
    "Dependency": "waiting for the job before it",
    "DependencyNeverSatisfied": "it will never start",
    "JobHeldUser": "held by a user: `scontrol release`",
    "JobHeldAdmin": "held by an administrator",
    "Licenses": "waiting for a licence",
    "InvalidAccount": "no longer valid",
    "None": "just queued",
}


@pytest.mark.parametrize(("word", "sentence"), SENTENCES.items())
def test_a_waiting_job_says_slurm_s_word_and_a_sentence(word: str, sentence: str) -> None:
    for shown in (word, f"({word})"):
        said = slurm_words.pending_reason(shown)
        assert said.startswith(f"{word}: ")
        assert sentence in said


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "ReqNodeNotAvail, UnavailableNodes:n[1-2]: nodes that it needs are down"),
        ("ReqNodeNotAvail,_UnavailableNodes:n1", "ReqNodeNotAvail, UnavailableNodes:n1: nodes that it needs are down"),
        ("ReqNodeNotAvail, Reserved for maintenance", "Reserved for maintenance: nodes that it needs are down"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "higher priority partitions: nodes that it needs are down",
        ),
        ("(launch_failed_requeued_held)", "launch failed requeued held: its node could not start it"),
        ("", "None: just queued"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_a_reason_of_several_words_or_one_that_nobody_knows(shown: str, told: str) -> None:
    said = slurm_words.pending_reason(shown)
    assert told in said
    assert said == "SomethingNew" or ": " in said


def test_every_sentence_has_a_word_that_slurm_could_say() -> None:
    for word, sentence in slurm_words.REASONS.items():
        assert slurm_words.pending_reason(word) == f"{word}: {sentence}"


# ---- Slurm's own forms -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:05", 5),
        ("03:04", 184),
        ("02:03:04", 7384),
        ("1-02:03:04", 93784),
        (" 10:00 ", 600),
        ("", None),
        ("5", None),
        ("INVALID", None),
        ("1:2:3:4", None),
        ("-1:00", None),
        ("UNLIMITED", None),
    ],
)
def test_elapsed_times(text: str, seconds: float | None) -> None:
    assert slurm_words.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "code"), [("0:0", 0), ("1:0", 1), ("143:0", 143), ("0:9", 137), ("0:15", 143), ("1:9", 1), ("", None), ("0", None)]
)
def test_exit_codes_are_those_of_a_shell(text: str, code: int | None) -> None:
    assert slurm_words.exit_code_of(text) == code


@pytest.mark.parametrize("said", ["Slurm accounting storage is disabled", "SLURM ACCOUNTING STORAGE IS DISABLED\n"])
def test_accounting_that_is_disabled_is_an_answer(said: str) -> None:
    assert slurm_words.DISABLED.search(said)
    assert not slurm_words.DISABLED.search("sacct: error: Problem talking to the database: Connection refused")
