"""helpers/executors/slurm/submission.py: one look, one upload, and no job twice, through the real launcher and a double of the cluster."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from nemo_evaluator_launcher.common import execdb

from cluster_double import CLUSTER, RUN, SEAL, ClusterDouble, config, queued, submit
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import stopping_points
from helpers.common.errors import StepFailed, Unreachable
from helpers.executors.slurm.submission import Submission, days_since, option

# ---- Through the launcher ----------------------------------------------------------------------------------------------------------------


def test_the_real_executor_looks_uploads_and_queues_once_each_in_this_order(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping_points, "here", lambda name: cluster.calls.append(f"({name})"))
    submission = submit(run, monkeypatch, images=["/images/vllm.sqsh", "nvcr.io/x"])
    rundir = f"/lustre/ann/20261122_013512-{submission.invocation_id}"
    assert cluster.calls == [
        "(before-prepare)", "prepare", "(before-upload)", f"upload hellaswag.0 adlr_mmlu.1 hellaswag.2 to {rundir}/",
        "(before-sbatch)", "submit",
        "(after-sbatch)",
    ]  # fmt: skip
    assert submission.names == [f"research-{RUN}.{name}" for name in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2")]
    for name in ("prepare", "submit"):
        values = cluster.values[name]
        assert values["RUNDIR"] == rundir
        assert values["NAMES"] == submission.names
        assert (
            values["DIRS"]
            == submission.remote_folders
            == [f"{rundir}/{folder}" for folder in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2")]
        )
    assert cluster.values["prepare"]["OUTPUT"] == "/lustre/ann/"
    assert sorted(cluster.values["prepare"]["PATHS"]) == ["/ckpt", "/data/d", "/data/e", "/images/vllm.sqsh"]
    assert cluster.values["prepare"]["SCRIPT"].encode() == cluster.sent["hellaswag.0/run.sub"]
    assert cluster.values["submit"]["KEEP_PARTIAL"] == 0


def test_the_launcher_s_database_has_each_job_with_its_slurm_id_and_folder(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = submit(run, monkeypatch)
    for index, folder in enumerate(submission.remote_folders):
        job = execdb.ExecutionDB().get_job(f"{submission.invocation_id}.{index}")
        assert job is not None
        assert (job.data["slurm_job_id"], job.data["remote_rundir_path"]) == (str(101 + index), folder)
        assert job.executor == "slurm"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["jobs"] for event in events] == [{"hellaswag.0": "101", "adlr_mmlu.1": "102", "hellaswag.2": "103"}]


def test_what_a_submission_is_expected_to_be_is_what_it_becomes(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make cancel` asks for these names and folders when the submission was killed before its record."""
    submission = submit(run, monkeypatch)
    assert Submission(CLUSTER, run, SEAL).expected(config()) == (submission.names, submission.remote_folders)


def test_tasks_that_have_a_job_already_are_adopted_and_not_uploaded_again(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.prepare = [Frame("job", "0", b"55"), Frame("job", "1", b""), Frame("job", "2", b"57")]
    cluster.submit = [Frame("found", "0", b"55"), Frame("queued", "1", b"102"), Frame("found", "2", b"57")]
    submission = submit(run, monkeypatch)
    assert [call for call in cluster.calls if call.startswith("upload")] == [f"upload adlr_mmlu.1 to {submission.remote_dir}/"]
    assert "2 of 3 tasks already have a job: adopted" in capsys.readouterr().err
    jobs = [execdb.ExecutionDB().get_job(f"{submission.invocation_id}.{index}") for index in range(3)]
    assert [job.data["slurm_job_id"] for job in jobs if job] == ["55", "102", "57"]


def test_when_all_have_a_job_nothing_is_uploaded_and_nothing_stands_against_it(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no reason to refuse what runs already."""
    cluster.prepare = [*queued("1", "2", "3", kind="job"), Frame("output", "-", b"No space left"), Frame("tested", "1", b"Invalid account")]
    cluster.submit = queued("1", "2", "3", kind="found")
    submit(run, monkeypatch)
    assert cluster.calls == ["prepare", "submit"]


def test_what_stands_against_it_is_found_before_anything_is_uploaded(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.prepare = [*queued("", "", "", kind="job"), Frame("tested", "1", b"sbatch: error: Invalid account or account/partition ...")]
    with pytest.raises(
        StepFailed, match=r"ann@login.example: Slurm would refuse the job: Invalid account.*sacctmgr.*; nothing was submitted"
    ):
        submit(run, monkeypatch)
    assert cluster.calls == ["prepare"]
    assert execdb.ExecutionDB().get_jobs(Submission(CLUSTER, run, SEAL).invocation_id) == {}


def test_keep_partial_reaches_the_cluster(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(run, monkeypatch, keep_partial=True)
    assert cluster.values["submit"]["KEEP_PARTIAL"] == 1


# ---- Which invocation --------------------------------------------------------------------------------------------------------------------


def test_a_run_has_one_invocation_and_another_seal_or_run_another(tmp_path: Path) -> None:
    run = tmp_path / RUN
    first = Submission(CLUSTER, run, SEAL)
    assert re.fullmatch("[0-9a-f]{16}", first.invocation_id)
    assert first.invocation_id == first.invocation_id == Submission(Cluster("other"), tmp_path / "elsewhere" / RUN, SEAL).invocation_id
    others = {
        Submission(CLUSTER, run, "sha256:1").invocation_id,
        Submission(CLUSTER, tmp_path / RUN.replace("7f", "8f"), SEAL).invocation_id,
    }
    assert len({first.invocation_id, *others}) == 3
    assert Submission(CLUSTER, None, SEAL).invocation_id != Submission(CLUSTER, None, SEAL).invocation_id


def test_its_folder_has_the_time_of_the_run_and_not_of_the_command(tmp_path: Path) -> None:
    assert Submission(CLUSTER, tmp_path / RUN, SEAL).timestamp == "20261122_013512"
    assert re.fullmatch(r"\d{8}_\d{6}", Submission(CLUSTER, None, SEAL).timestamp)


def test_accounting_is_asked_back_to_before_the_run_whatever_the_cluster_s_clock() -> None:
    now = datetime.now(timezone.utc)
    assert days_since(now) == 2
    assert days_since(now - timedelta(days=3, hours=1)) == 5
    assert days_since(now + timedelta(days=3)) == 2, "a clock that goes wrong asks for no future"


# ---- What Slurm says to it ---------------------------------------------------------------------------------------------------------------


def raised(frames: list[Frame], run: Path | None) -> Exception:
    submission = Submission(CLUSTER, run, SEAL, folders=[Path("a.0"), Path("b.1"), Path("c.2")])
    ids = {int(frame.key): frame.text for frame in frames if frame.kind in ("found", "queued")}
    with pytest.raises((StepFailed, Unreachable)) as caught:
        submission._raise_for(frames, ids)
    return caught.value


REFUSED = Frame("refused", "1", b"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates ...")


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        ([Frame("no-queue", "-", b"slurm_load_jobs error")], Unreachable, "nothing is lost; the same command with RUN="),
        ([*queued("1"), Frame("unsure", "1", b"Socket timed out")], Unreachable, "does not say which jobs exist (Socket timed out)"),
        ([Frame("locked", "-", b"login1 4711")], Unreachable, "another submission of this run is active on ann@login.example"),
        ([Frame("gone", "-", b"/r")], StepFailed, "/r was removed during the submission; run the same command with RUN="),
        (queued("1", "2"), StepFailed, "2 of 3 tasks have a job; run the same command with RUN="),
        ([REFUSED], StepFailed, "Slurm refused b.1: QOSMaxSubmitJobPerUserLimit Batch job submission failed: Job violates ...; a limit of"),
        ([REFUSED], StepFailed, "; nothing was queued"),
        ([*queued("1"), REFUSED, Frame("taken-back", "-", b"1")], StepFailed, "were cancelled: 1 (KEEP_PARTIAL=1 keeps them)"),
        ([*queued("1"), REFUSED, Frame("left", "-", b"1")], StepFailed, "cancelled: 1; the same command cancels them first"),
        ([*queued("1"), REFUSED, Frame("queued", "2", b"3")], StepFailed, "2 of 3 tasks are queued and stay (1, 3); the same command with"),
    ],
)  # fmt: skip
def test_what_the_cluster_answers_to_a_submission_is_reported_with_what_to_do(
    frames: list[Frame], error: type[Exception], words: str, tmp_path: Path
) -> None:
    caught = raised(frames, tmp_path / RUN)
    assert type(caught) is error
    assert words in str(caught)
    assert "RUN=" not in str(raised(frames, None))


def test_that_all_tasks_have_a_job_is_no_error(tmp_path: Path) -> None:
    submission = Submission(CLUSTER, tmp_path / RUN, SEAL, folders=[Path("a.0"), Path("b.1")])
    submission._raise_for(queued("1", "2"), {0: "1", 1: "2"})


def test_each_refused_task_has_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raised([REFUSED, Frame("refused", "2", b"sbatch: error: Invalid\n qos \x1b[2J")], tmp_path / RUN)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["✗ b.1", "✗ c.2"]
    assert "\x1b" not in "".join(lines)


def test_options_are_read_from_the_script_s_own_lines() -> None:
    script = "#!/bin/bash\n#SBATCH --job-name a-b.c.0\n#SBATCH --time 01:00:00\n#SBATCH --partition=p\necho '#SBATCH --account x'\n"
    assert option(script, "job-name") == "a-b.c.0"
    assert option(script, "time") == "01:00:00"
    assert option(script, "partition") == "p"
    assert option(script, "account") == ""
