"""helpers/executors/slurm/submission.py: the launcher's own Slurm executor with our names in it, over a double of the cluster.

Held here: each name that is replaced in nemo-evaluator-launcher 0.2.6 is there, and is called as our replacement takes it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nemo_evaluator_launcher.api import functional
from nemo_evaluator_launcher.common import env_vars, execdb
from nemo_evaluator_launcher.executors.slurm import executor

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, Frame
from helpers.common import stopping_points
from helpers.common.errors import StepFailed, Unreachable
from helpers.credentials.wandb_server import run_id
from helpers.executors.slurm import submission
from helpers.executors.slurm.submission import Submitting, refuse_problems
from helpers.launcher import api
from helpers.steps.submit import launcher_config
from wandb_double import ENTITY, KEY, PROJECT, WandbDouble

CLUSTER = Cluster("login.example", "ann")
RUN = "20261122T013512Z-mine-7f3a"
SEAL = "sha256:" + "0" * 64
TASKS = ["hellaswag", "adlr_mmlu", "hellaswag"]
NASTY = 'it\'s "quoted" $HOME ${HOME} `id` $(id) \\n \\ !x ; & | > < # *\nsecond line \t é'


@dataclass
class ClusterDouble:
    """A double of what cluster/connection.py reaches: it notes what it is given, and answers prepare and submit with these frames."""

    prepare: list[Frame] = field(default_factory=list)
    submit: list[Frame] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)  # by TASK.N/FILE
    modes: dict[str, int] = field(default_factory=dict)

    def script(self, name: str, **values: Any) -> str:
        return json.dumps([name, values])

    def run(self, cluster: Cluster, text: str, timeout: float = 0) -> list[Frame]:
        name, values = json.loads(text)
        assert cluster == CLUSTER
        assert timeout >= 180
        self.calls.append(name)
        self.values[name] = values
        return self.prepare if name == "prepare" else self.submit

    def upload(self, cluster: Cluster, sources: list[Path], target: str) -> None:
        assert cluster == CLUSTER
        self.calls.append(f"upload {' '.join(source.name for source in sources)} to {target}")
        for source in sources:
            for path in source.rglob("*"):
                name = str(path.relative_to(source.parent))
                self.modes[name] = stat.S_IMODE(path.stat().st_mode)
                if path.is_file():
                    self.sent[name] = path.read_bytes()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_env: dict[str, str]) -> Iterator[ClusterDouble]:
    """The double in the place of helpers/cluster/connection.py, and a job database of the test's own."""
    double = ClusterDouble(submit=queued("101", "102", "103"))
    for name in ("script", "run", "upload"):
        monkeypatch.setattr(connection, name, getattr(double, name))
    path = tmp_path / "exec.jsonl"
    monkeypatch.setattr(execdb, "EXEC_DB_FILE", path)
    monkeypatch.setattr(execdb, "EXEC_DB_DIR", tmp_path)
    monkeypatch.setattr(execdb.ExecutionDB, "_instance", None)
    monkeypatch.setattr(execdb.ExecutionDB, "_jobs", {})
    monkeypatch.setattr(execdb.ExecutionDB, "_invocations", {})
    yield double
    api._quieted.clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / RUN).mkdir()
    return tmp_path / RUN


def queued(*ids: str, kind: str = "queued") -> list[Frame]:
    return [Frame(kind, str(index), job.encode()) for index, job in enumerate(ids)]


def config(**sections: Any) -> dict[str, Any]:
    return {
        "execution": {
            "type": "slurm", "hostname": "login.example", "username": "ann", "account": "research", "partition": "batch",
            "output_dir": "/lustre/ann/", "walltime": "01:00:00", "num_nodes": 1, "ntasks_per_node": 1, "subproject": RUN,
            "mounts": {"mount_home": False, "evaluation": {"/data/e": "/e"}, "deployment": {"/data/d": "/d"}},
        },
        "deployment": {
            "type": "vllm", "image": "/images/vllm.sqsh", "checkpoint_path": "/ckpt", "served_model_name": "m", "port": 8000,
            "command": "serve", "endpoints": {"chat": "/v1/chat/completions", "completions": "/v1/completions", "health": "/health"},
            "env_vars": {"HF_TOKEN": "host:MY_TOKEN"},
        },
        "evaluation": {"tasks": [{"name": name} for name in TASKS], "env_vars": {"WORD": "host:MY_WORD"}},
        **sections,
    }  # fmt: skip


def submit(run: Path | None, monkeypatch: pytest.MonkeyPatch, seal: str = SEAL, **options: Any) -> tuple[str, Submitting]:
    """Hand the config to the real launcher, as helpers/steps/submit.py does."""
    monkeypatch.setenv("MY_TOKEN", "hf_$ecret")
    monkeypatch.setenv("MY_WORD", NASTY)
    submitting = Submitting(CLUSTER, run, seal, **options)
    return api.run_eval(config(), None, submitting.replacing()), submitting


# ---- The names that are replaced -----------------------------------------------------------------------------------------------------


def replaced(run: Path | None = None) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Each name that is replaced, with what stood there and what stands there meanwhile."""
    modules = {"executor": executor, "functional": functional}
    before = {(short, name): value for short, module in modules.items() for name, value in vars(module).items()}
    with Submitting(CLUSTER, run, SEAL).replacing():
        return {
            (short, name): (before[short, name], value)
            for short, module in modules.items()
            for name, value in vars(module).items()
            if before[short, name] is not value
        }


def test_each_name_is_there_and_is_as_it_was_afterwards() -> None:
    stock = {key: was for key, (was, _) in replaced().items()}
    assert {name for _, name in stock} == {
        "generate_invocation_id", "get_timestamp_string", "load_tasks_mapping", "get_task_definition_for_job", "generate_secrets_env",
        "master_connection", "_validate_remote_paths_exist", "_make_remote_execution_output_dir", "_rsync_upload_rundirs",
        "_sbatch_remote_runsubs", "_generate_auto_export_section",
    }  # fmt: skip
    for (short, name), was in stock.items():
        assert vars({"executor": executor, "functional": functional}[short])[name] is was
        assert callable(was)


def test_each_replacement_takes_what_the_name_was_given() -> None:
    called = {"_rsync_upload_rundirs": Submitting._upload, "_sbatch_remote_runsubs": Submitting._queue}
    for (_, name), (was, now) in replaced().items():
        words = inspect.signature(was).parameters
        if name in called:
            inspect.signature(called[name]).bind(None, **dict.fromkeys(words))
        elif name == "generate_secrets_env":
            assert list(inspect.signature(now).parameters) == list(words) == ["env_groups"]
        else:
            inspect.signature(now).bind(**dict.fromkeys(words))


def test_names_and_umask_are_as_they_were_after_an_error_too() -> None:
    stock, umask = executor._rsync_upload_rundirs, os.umask(0o022)
    try:
        with pytest.raises(ValueError, match="in between"), Submitting(CLUSTER, None, SEAL).replacing():
            raise ValueError("in between")
        assert executor._rsync_upload_rundirs is stock
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


# ---- A submission through the launcher -----------------------------------------------------------------------------------------------


def test_the_real_executor_looks_uploads_and_queues_once_each_in_this_order(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping_points, "here", lambda name: cluster.calls.append(f"({name})"))
    invocation, submitting = submit(run, monkeypatch, images=["/images/vllm.sqsh", "nvcr.io/x"])
    rundir = f"/lustre/ann/20261122_013512-{invocation}"
    assert cluster.calls == [
        "(before-prepare)", "prepare", "(before-upload)", f"upload hellaswag.0 adlr_mmlu.1 hellaswag.2 to {rundir}/",
        "(before-sbatch)", "submit",
        "(after-sbatch)",
    ]  # fmt: skip
    assert submitting.names == [f"research-{RUN}.{name}" for name in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2")]
    for name in ("prepare", "submit"):
        values = cluster.values[name]
        assert values["RUNDIR"] == rundir
        assert values["NAMES"] == submitting.names
        assert (
            values["DIRS"]
            == submitting.remote_folders
            == [f"{rundir}/{folder}" for folder in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2")]
        )
    assert cluster.values["prepare"]["OUTPUT"] == "/lustre/ann/"
    assert sorted(cluster.values["prepare"]["PATHS"]) == ["/ckpt", "/data/d", "/data/e", "/images/vllm.sqsh"]
    assert cluster.values["prepare"]["SCRIPT"].encode() == cluster.sent["hellaswag.0/run.sub"]
    assert cluster.values["submit"]["KEEP_PARTIAL"] == 0


def test_the_launcher_s_database_has_each_job_with_its_slurm_id_and_folder(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation, submitting = submit(run, monkeypatch)
    for index, folder in enumerate(submitting.remote_folders):
        job = execdb.ExecutionDB().get_job(f"{invocation}.{index}")
        assert job is not None
        assert (job.data["slurm_job_id"], job.data["remote_rundir_path"]) == (str(101 + index), folder)
        assert job.executor == "slurm"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["jobs"] for event in events] == [{"hellaswag.0": "101", "adlr_mmlu.1": "102", "hellaswag.2": "103"}]


def test_what_a_submission_is_expected_to_be_is_what_it_becomes(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make cancel` asks for these names and folders when the submission was killed before its record."""
    _, submitting = submit(run, monkeypatch)
    assert Submitting(CLUSTER, run, SEAL).expected(config()) == (submitting.names, submitting.remote_folders)


def test_secrets_go_up_for_their_owner_alone_and_stand_in_no_script(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(run, monkeypatch)
    for name, mode in cluster.modes.items():
        assert mode & 0o077 == 0, name
    for folder in ("hellaswag.0", "adlr_mmlu.1", "hellaswag.2"):
        assert b"hf_$ecret" in cluster.sent[f"{folder}/.secrets.env"]
        assert b"ecret" not in cluster.sent[f"{folder}/run.sub"].replace(b".secrets.env", b"")


def test_what_the_secrets_file_says_arrives_in_the_job_s_own_variables(
    cluster: ClusterDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of run.sub that source the file and hand the values on, by a real bash."""
    submit(run, monkeypatch)
    (tmp_path / ".secrets.env").write_bytes(cluster.sent["hellaswag.0/.secrets.env"])
    exports = [line for line in cluster.sent["hellaswag.0/run.sub"].decode().splitlines() if re.match(r"export \w+=\"\$\{\w+\}\"", line)]
    assert len(exports) == 2
    text = f"source {tmp_path}/.secrets.env\n" + "\n".join(exports) + '\nprintf "%s\\0%s" "$WORD" "$HF_TOKEN"\n'
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True, env={"PATH": os.environ["PATH"], "HOME": "/wrong"})
    assert done.stdout.decode().split("\0") == [NASTY, "hf_$ecret"]
    assert done.stderr == b""


def test_tasks_that_have_a_job_already_are_adopted_and_not_uploaded_again(
    cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.prepare = [Frame("job", "0", b"55"), Frame("job", "1", b""), Frame("job", "2", b"57")]
    cluster.submit = [Frame("found", "0", b"55"), Frame("queued", "1", b"102"), Frame("found", "2", b"57")]
    invocation, submitting = submit(run, monkeypatch)
    assert [call for call in cluster.calls if call.startswith("upload")] == [f"upload adlr_mmlu.1 to {submitting.remote_dir}/"]
    assert "2 of 3 tasks have a job already: adopted" in capsys.readouterr().err
    jobs = [execdb.ExecutionDB().get_job(f"{invocation}.{index}") for index in range(3)]
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
    assert execdb.ExecutionDB().get_jobs(Submitting(CLUSTER, run, SEAL).invocation_id) == {}


def test_keep_partial_reaches_the_cluster(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(run, monkeypatch, keep_partial=True)
    assert cluster.values["submit"]["KEEP_PARTIAL"] == 1


def test_a_container_of_a_task_s_own_needs_no_registry(cluster: ClusterDouble, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    monkeypatch.setenv("MY_WORD", "x")
    given = config()
    given["evaluation"]["tasks"][1]["container"] = "/images/own.sqsh"
    api.run_eval(given, None, Submitting(CLUSTER, run, SEAL).replacing())
    assert b"--container-image /images/own.sqsh " in cluster.sent["adlr_mmlu.1/run.sub"]
    assert b"--container-image /images/own.sqsh " not in cluster.sent["hellaswag.0/run.sub"]


def test_the_definition_of_a_task_of_the_catalogue_is_asked_for_without_its_container() -> None:
    asked: list[dict[str, Any]] = []
    find = submission.definition(lambda **words: asked.append(words))
    find(task_query="hellaswag", base_mapping={}, container="/own.sqsh", endpoint_type="chat")
    find(task_query="nobody.knows.it", base_mapping={}, container="/own.sqsh", endpoint_type=None)
    assert [words["container"] for words in asked] == [None, "/own.sqsh"]
    assert asked[0] == {"task_query": "hellaswag", "container": None, "base_mapping": {}, "endpoint_type": "chat"}


# ---- Which invocation ----------------------------------------------------------------------------------------------------------------


def test_a_run_has_one_invocation_and_another_seal_or_run_another(tmp_path: Path) -> None:
    run = tmp_path / RUN
    first = Submitting(CLUSTER, run, SEAL)
    assert re.fullmatch("[0-9a-f]{16}", first.invocation_id)
    assert first.invocation_id == first.invocation_id == Submitting(Cluster("other"), tmp_path / "elsewhere" / RUN, SEAL).invocation_id
    others = {
        Submitting(CLUSTER, run, "sha256:1").invocation_id,
        Submitting(CLUSTER, tmp_path / RUN.replace("7f", "8f"), SEAL).invocation_id,
    }
    assert len({first.invocation_id, *others}) == 3
    assert Submitting(CLUSTER, None, SEAL).invocation_id != Submitting(CLUSTER, None, SEAL).invocation_id


def test_its_folder_has_the_time_of_the_run_and_not_of_the_command(tmp_path: Path) -> None:
    assert Submitting(CLUSTER, tmp_path / RUN, SEAL).timestamp == "20261122_013512"
    assert re.fullmatch(r"\d{8}_\d{6}", Submitting(CLUSTER, None, SEAL).timestamp)


def test_accounting_is_asked_back_to_before_the_run_whatever_the_cluster_s_clock() -> None:
    now = datetime.now(timezone.utc)
    assert submission.days_since(now) == 2
    assert submission.days_since(now - timedelta(days=3, hours=1)) == 5
    assert submission.days_since(now + timedelta(days=3)) == 2, "a clock that goes wrong asks for no future"


# ---- What Slurm says to it -----------------------------------------------------------------------------------------------------------


def raised(frames: list[Frame], run: Path | None) -> Exception:
    submitting = Submitting(CLUSTER, run, SEAL, folders=[Path("a.0"), Path("b.1"), Path("c.2")])
    ids = {int(frame.key): frame.text for frame in frames if frame.kind in ("found", "queued")}
    with pytest.raises((StepFailed, Unreachable)) as caught:
        submitting._raise_for(frames, ids)
    return caught.value


REFUSED = Frame("refused", "1", b"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates ...")


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        ([Frame("no-queue", "-", b"slurm_load_jobs error")], Unreachable, "nothing was lost; the same command with RUN="),
        ([*queued("1"), Frame("unsure", "1", b"Socket timed out")], Unreachable, "does not say which jobs there are (Socket timed out)"),
        ([Frame("locked", "-", b"login1 4711")], Unreachable, "another submission of this run is at work on ann@login.example"),
        ([Frame("gone", "-", b"/r")], StepFailed, "/r was removed while the run was submitted; give the same command RUN="),
        (queued("1", "2"), StepFailed, "2 of 3 tasks have a job; give the same command RUN="),
        ([REFUSED], StepFailed, "Slurm refused b.1: QOSMaxSubmitJobPerUserLimit Batch job submission failed: Job violates ...; a limit of"),
        ([REFUSED], StepFailed, "; nothing was queued"),
        ([*queued("1"), REFUSED, Frame("taken-back", "-", b"1")], StepFailed, "were cancelled: 1 (KEEP_PARTIAL=1 keeps them)"),
        ([*queued("1"), REFUSED, Frame("left", "-", b"1")], StepFailed, "cancelled: 1; the same command cancels them first"),
        ([*queued("1"), REFUSED, Frame("queued", "2", b"3")], StepFailed, "2 of 3 tasks are queued and stay (1, 3); the same command RUN="),
    ],
)  # fmt: skip
def test_what_the_cluster_answers_to_a_submission_is_told_with_what_to_do(
    frames: list[Frame], error: type[Exception], words: str, tmp_path: Path
) -> None:
    caught = raised(frames, tmp_path / RUN)
    assert type(caught) is error
    assert words in str(caught)
    assert "RUN=" not in str(raised(frames, None))


def test_that_all_tasks_have_a_job_is_no_error(tmp_path: Path) -> None:
    submitting = Submitting(CLUSTER, tmp_path / RUN, SEAL, folders=[Path("a.0"), Path("b.1")])
    submitting._raise_for(queued("1", "2"), {0: "1", 1: "2"})


def test_each_refused_task_has_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raised([REFUSED, Frame("refused", "2", b"sbatch: error: Invalid\n qos \x1b[2J")], tmp_path / RUN)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["✗ b.1", "✗ c.2"]
    assert "\x1b" not in "".join(lines)


# What sbatch 22.05 says, and what a person can do about it.
MENDS = {
    "Batch job submission failed: Invalid account or account/partition combination specified": "check account (and partition)",
    "invalid partition specified: nosuch Batch job submission failed: Invalid partition name specified": "check partition in env.toml",
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)": "lower time",
    "QOSMaxWallDurationPerJobLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "lower time",
    "QOSMaxSubmitJobPerUserLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "wait for jobs of yours to end",
    "AssocMaxSubmitJobLimit Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time "
    "limits)": "wait for jobs of yours to end",
    "Batch job submission failed: Requested node configuration is not available": "no node of the partition has what is asked for",
    "Batch job submission failed: Invalid generic resource (gres) specification": "no node of the partition has what is asked for",
    "Batch job submission failed: User's group not permitted to use this partition": "not open to this account or user",
    "Batch job submission failed: Job's account not permitted to use this partition (a allows b not c)": "not open to this account or user",
    "Batch job submission failed: Access/permission denied": "",
    "Batch job submission failed: Required partition not available (inactive or drain)": "the partition takes no jobs now",
    "Batch job submission failed: Requested partition configuration not available now": "the partition takes no jobs now",
}


@pytest.mark.parametrize(("said", "mend"), MENDS.items())
def test_a_refusal_is_told_with_its_mend(said: str, mend: str) -> None:
    text = "sbatch: error: " + said.replace(" Batch job", "\nsbatch: error: Batch job")
    with pytest.raises(StepFailed) as caught:
        refuse_problems(CLUSTER, "/o", [Frame("tested", "1", text.encode())])
    assert f"ann@login.example: Slurm would refuse the job: {said}; " in str(caught.value)
    assert mend in str(caught.value)
    assert str(caught.value).endswith("; nothing was submitted")


def test_a_refusal_that_nobody_knows_is_told_as_it_is() -> None:
    with pytest.raises(StepFailed, match=r"would refuse the job: Batch job submission failed: Unspecified error; nothing was submitted$"):
        refuse_problems(CLUSTER, "/o", [Frame("tested", "1", b"sbatch: error: Batch job submission failed: Unspecified error")])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame("output", "-", b"mkdir: cannot create directory: Permission denied"), "/o cannot be written (mkdir: cannot create"),
        (Frame("missing", "-", b"/ckpt"), "/ckpt does not exist there: check deployment.checkpoint_path"),
        (Frame("closed", "-", b"/ckpt"), "/ckpt cannot be read there: mend its permissions"),
        (Frame("room", "-", b"/dev/sda1 1000000 990000 10000 99% /o"), "/o has 9 MiB left, and an evaluation needs 20: free space"),
    ],
)
def test_each_problem_is_told_with_its_mend(frame: Frame, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailed) as caught:
        refuse_problems(CLUSTER, "/o", [frame, Frame("tested", "0", b"")])
    assert words in str(caught.value)
    assert words in capsys.readouterr().err


def test_of_several_problems_all_are_told_and_the_first_again(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_when_nothing_stands_against_it_the_expected_start_and_little_room_are_told(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert submission.free_bytes(line) == free


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
    lines = list(submission.never_started([Frame("partition", "-", rows.encode())], time))
    assert len(lines) == len(told)
    for line, words in zip(lines, told, strict=True):
        assert line.startswith(words)


def test_options_are_read_from_the_script_s_own_lines() -> None:
    script = "#!/bin/bash\n#SBATCH --job-name a-b.c.0\n#SBATCH --time 01:00:00\n#SBATCH --partition=p\necho '#SBATCH --account x'\n"
    assert submission.job_name(script) == "a-b.c.0"
    assert submission.option(script, "time") == "01:00:00"
    assert submission.option(script, "partition") == "p"
    assert submission.option(script, "account") == ""


# ---- Secrets -------------------------------------------------------------------------------------------------------------------------


VALUES = [
    NASTY,
    "",
    " ",
    "plain",
    "'",
    "''",
    '"',
    "\\",
    "a\\'b",
    "\n",
    "$(touch /tmp/evalmake-was-here)",
    "-n",
    "=",
    "x" * 5000,
    "漢\u202e",
]


def test_every_value_arrives_through_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", NASTY)
    group: dict[str, Any] = {f"V{number}": env_vars.EnvVarLiteral(value) for number, value in enumerate(VALUES)}
    group |= {"H": env_vars.EnvVarFromHost("SECRET"), "R": env_vars.EnvVarRuntime("ELSEWHERE")}
    made = submission.quoted_secrets({"my.task.0": group, "deployment": {"V0": env_vars.EnvVarLiteral("other's")}})
    path = tmp_path / ".secrets.env"
    path.write_text(made.secrets_content)
    done = subprocess.run(["bash", "-c", f"source {path}; env -0"], capture_output=True, check=True)
    assert done.stderr == b""
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    names = {one.original_name: one.disambiguated_name for one in made.group_remappings["my.task.0"]}
    assert [found[names[f"V{number}"]] for number in range(len(VALUES))] == VALUES
    assert found[names["H"]] == NASTY
    (other,) = made.group_remappings["deployment"]
    assert found[other.disambiguated_name] == "other's"
    assert "R" not in names
    assert [one.original_name for one in made.runtime_vars["my.task.0"]] == ["R"]
    assert not Path("/tmp/evalmake-was-here").exists()


def test_without_values_the_file_is_empty_as_the_launcher_s() -> None:
    for groups in ({}, {"g": {}}, {"g": {"R": env_vars.EnvVarRuntime("X")}}):
        assert submission.quoted_secrets(groups).secrets_content == env_vars.generate_secrets_env(groups).secrets_content == ""


# ---- The export job --------------------------------------------------------------------------------------------------------------------


def test_an_export_job_and_we_write_to_the_same_wandb_run_with_the_key_out_of_the_secrets_file(
    cluster: ClusterDouble, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's export.sbatch, run by a real bash with stand-ins for srun and pip, and its real exporter with the real SDK."""
    lustre, tools, venv = tmp_path / "lustre", tmp_path / "bin", Path(sys.executable).parent
    sections = config()
    sections["execution"] |= {"output_dir": str(lustre), "auto_export": {"enabled": True, "destinations": ["wandb"]}}
    with WandbDouble() as double:
        values = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": double.url, "WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT}
        for name, value in {**values, "MY_TOKEN": "hf_$ecret", "MY_WORD": NASTY}.items():
            monkeypatch.setenv(name, value)
        wandb = {"mode": "online", "server": double.url, "entity": ENTITY, "project": PROJECT}
        data = launcher_config({**sections, "run": {}}, run, wandb=wandb)
        submitting = Submitting(CLUSTER, run, SEAL)
        invocation = api.run_eval(data, None, submitting.replacing())
        name = "hellaswag.2"
        there = Path(submitting.remote_dir) / name
        for file, content in cluster.sent.items():
            if KEY.encode() in content:
                assert file.endswith("/.secrets.env"), file
            (Path(submitting.remote_dir) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(submitting.remote_dir) / file).write_bytes(content)
        script = cluster.sent[f"{name}/run.sub"].decode()
        (sbatch,) = re.findall(r"<< 'EXPORT_EOF'\n(.*?)\nEXPORT_EOF\n", script, re.DOTALL)
        (settings,) = re.findall(r"cat > export_config.yml << 'EOF'\n(.*?)\nEOF\n", script, re.DOTALL)
        artifacts = there / "artifacts"
        artifacts.mkdir()
        (artifacts / "export_config.yml").write_text(settings)
        scores = {"acc": {"scores": {"acc": {"value": 0.5, "stats": {"stderr": 0.25, "count": 4}}}}}
        result = {"results": {"tasks": {"hellaswag": {"metrics": scores}}}, "config": {"type": "lm-eval.hellaswag"}}
        result["target"] = {"api_endpoint": {"model_id": "m"}}
        (artifacts / "results.yml").write_text(json.dumps(result))
        (artifacts / "metadata.yaml").write_text(json.dumps({"launcher_resolved_config": data}))
        (artifacts / "run_config.yml").write_text(json.dumps(result))
        (artifacts / "eval_factory_metrics.json").write_text("{}")
        tools.mkdir()
        (tools / "srun").write_text('#!/bin/bash\nwhile [ "$1" != bash ]; do shift; done\nexec "$@"\n')
        (tools / "pip").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/installed\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        home = tmp_path / "elsewhere"
        home.mkdir()
        environ = {"PATH": f"{tools}:{venv}:{os.environ['PATH']}", "HOME": str(home), "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0"}
        for _ in range(2):
            done = subprocess.run(["bash", "-c", sbatch], env=environ, capture_output=True, text=True, timeout=120, check=False)
            assert "'successful_jobs': 1" in done.stdout, done.stdout + done.stderr
        assert f"wandb=={version('wandb')}" in (tmp_path / "installed").read_text().splitlines()
        known = run_id(invocation, name)
        held = double.run(known)
        assert list(double.runs) == [(ENTITY, PROJECT, known)]
        assert held.summary["hellaswag_acc"] == 0.5
        assert "hellaswag_acc_stderr" not in held.summary, "what the launcher's exporter leaves out"
        assert double.keys_seen() == {KEY, None}
