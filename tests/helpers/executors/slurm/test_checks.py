"""helpers/executors/slurm/checks.py: what prevents a submission, with the fix, and what is worth knowing before it."""

from __future__ import annotations

import pytest

from cluster_double import CLUSTER
from helpers.cluster.scripts import Frame
from helpers.common.errors import StepFailed, Unreachable
from helpers.executors.slurm import checks
from helpers.executors.slurm.checks import refuse_problems

# What sbatch 22.05 says, and what a person can do about it.
FIXES = {
    "Batch job submission failed: Invalid account or account/partition combination specified": "check account (and partition)",
    "invalid partition specified: nosuch Batch job submission failed: Invalid partition name specified": "check partition in env.toml",
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)": "lower time",
    "QOSMaxWallDurationPerJobLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "lower time",
    "QOSMaxSubmitJobPerUserLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "wait until jobs of yours have ended",
    "AssocMaxSubmitJobLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "wait until jobs of yours have ended",
    "Batch job submission failed: Requested node configuration is not available": "no node of the partition has what the job asks for",
    "Batch job submission failed: Invalid generic resource (gres) specification": "no node of the partition has what the job asks for",
    "Batch job submission failed: User's group not permitted to use this partition": "not open to this account or user",
    "Batch job submission failed: Job's account not permitted to use this partition (a allows b not c)": "not open to this account or user",
    "Batch job submission failed: Access/permission denied": "",
    "Batch job submission failed: Required partition not available (inactive or drain)": "the partition accepts no jobs at the moment",
    "Batch job submission failed: Requested partition configuration not available now": "the partition accepts no jobs at the moment",
}


@pytest.mark.parametrize(("said", "fix"), FIXES.items())
def test_a_refusal_is_reported_with_its_fix(said: str, fix: str) -> None:
    text = "sbatch: error: " + said.replace(" Batch job", "\nsbatch: error: Batch job")
    with pytest.raises(StepFailed) as caught:
        refuse_problems(CLUSTER, "/o", [Frame("tested", "1", text.encode())])
    assert f"ann@login.example: Slurm would refuse the job: {said}; " in str(caught.value)
    assert fix in str(caught.value)
    assert str(caught.value).endswith("; nothing was submitted")


def test_a_refusal_that_nobody_knows_is_reported_as_it_is() -> None:
    with pytest.raises(StepFailed, match=r"would refuse the job: Batch job submission failed: Unspecified error; nothing was submitted$"):
        refuse_problems(CLUSTER, "/o", [Frame("tested", "1", b"sbatch: error: Batch job submission failed: Unspecified error")])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame("output", "-", b"mkdir: cannot create directory: Permission denied"), "/o cannot be written (mkdir: cannot create"),
        (Frame("missing", "-", b"/ckpt"), "/ckpt does not exist there: check deployment.checkpoint_path"),
        (Frame("closed", "-", b"/ckpt"), "/ckpt cannot be read there: fix its permissions"),
        (Frame("room", "-", b"/dev/sda1 1000000 990000 10000 99% /o"), "/o has 9 MiB left, and an evaluation needs 20: free space"),
    ],
)
def test_each_problem_is_reported_with_its_fix(frame: Frame, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailed) as caught:
        refuse_problems(CLUSTER, "/o", [frame, Frame("tested", "0", b"")])
    assert words in str(caught.value)
    assert words in capsys.readouterr().err


def test_of_several_problems_all_are_reported_and_the_first_again(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Frame("missing", "-", b"/a"), Frame("missing", "-", b"/b"), Frame("tested", "1", b"sbatch: error: Invalid account")]
    with pytest.raises(StepFailed, match=r"/a does not exist there.*\(and 2 more, see above\); nothing was submitted"):
        refuse_problems(CLUSTER, "/o", frames)
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize(
    "frame",
    [
        Frame("no-queue", "-", b"slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        Frame("tested", "1", b"sbatch: error: Unable to contact slurm controller"),
        Frame("tested", "1", b"allocation failure: Socket timed out on send/recv operation"),
        Frame("tested", "124", b""),
        Frame("tested", "137", b""),
    ],
)
def test_a_slurm_that_does_not_answer_is_worth_trying_again(frame: Frame) -> None:
    with pytest.raises(Unreachable, match="nothing was submitted, try again later"):
        refuse_problems(CLUSTER, "/o", [frame])


def test_when_nothing_stands_against_it_the_expected_start_and_little_room_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    start = b"sbatch: Job 12 to start at 2026-11-24T10:00:00 using 4 processors on nodes n1 in partition batch"
    refuse_problems(CLUSTER, "/o", [Frame("room", "-", b"/dev/sda1 9 9 1000000 99% /o"), Frame("tested", "0", start)])
    told = capsys.readouterr().err
    assert "[notice] /o has 976 MiB left" in told
    assert "[info] Slurm would start it at 2026-11-24T10:00:00 on nodes n1 (by the cluster's clock)" in told
    refuse_problems(
        CLUSTER, "/o", [Frame("room", "-", b"/dev/sda1 9 9 100000000 1% /o"), Frame("tested", "0", b"?"), Frame("who", "-", b"x")]
    )
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "free"),
    [
        ("/dev/sda1 1000 400 600 40% /lustre", 600 * 1024),
        ("10.0.0.1@tcp:/fs 2000 1 1999 1% /a mount with spaces", 1999 * 1024),
        ("", None),
        ("df: /nosuch: No such file or directory", None),
        ("- - - - - /proc", None),
        ("/dev/sda1 1 2 3", None),
    ],
)
def test_free_room_is_read_from_df(line: str, free: int | None) -> None:
    assert checks.free_bytes(line) == free


@pytest.mark.parametrize(
    ("rows", "time", "told"),
    [
        ("batch|4:00:00|up\n", "04:00:00", []),
        ("batch|4:00:00|up\n", "04:00:01", ["walltime 04:00:01 is over the"]),
        ("a|1:00:00|up\nb|1-00:00:00|up\n", "20:00:00", []),
        ("batch|infinite|up\n", "400:00:00", []),
        ("batch|4:00:00|down\n", "01:00:00", ["partition batch is down"]),
        ("batch|4:00:00|drain\n", "05:00:00", ["walltime 05:00:00 is over", "partition batch is drain"]),
        ("a|1:00:00|down\nb|1:00:00|up\n", "01:00:00", []),
        ("slurm_load_partitions: error\n", "01:00:00", []),
        ("", "01:00:00", []),
        ("batch|4:00:00|up\n", "", []),
    ],
)
def test_a_job_that_would_never_start_is_told_though_slurm_takes_it(rows: str, time: str, told: list[str]) -> None:
    lines = list(checks.never_started([Frame("partition", "-", rows.encode())], time))
    assert len(lines) == len(told)
    for line, words in zip(lines, told, strict=True):
        assert line.startswith(words)
