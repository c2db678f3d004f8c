"""Submitting to the test cluster through Make, as a person does: each task once, over one connection, and secrets stay secret."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from checkout import ROOT
from cluster.gates import gate, waiting_for_the_lock
from cluster.pipeline import HELD, Pipeline, exit_code, said
from cluster.testbed import Bed, until

THREE = ["toy.sums.0", "toy.differences.1", "toy.sums.2"]
# Each character that some shell on the way would do something with.
NASTY = """ a$b"c`d\\e'f g$(touch /tmp/ran)${HOME};&|<>*?[x]{y,z}!#%~^(ü)\t\\"""


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("submit"))
    made.write_config("three", ["toy.sums", "toy.differences", "toy.sums"])
    made.write_config("mount-with-a-space", execution={"mounts": {"evaluation": {"/data/a b": "/data"}}})
    return made


@pytest.fixture(autouse=True)
def _empty_queue(pipeline: Pipeline) -> Iterator[None]:
    yield
    pipeline.scancel()


def test_a_batch_run_has_one_job_per_task_each_by_its_name_and_folder_over_one_connection_and_ends_well(pipeline: Pipeline) -> None:
    pipeline.disconnect()
    before = pipeline.connections()
    done = pipeline.make("batch", "CONFIG=three")
    assert done.returncode == 0, said(done)
    run, submission = pipeline.run, pipeline.document(pipeline.run)
    jobs = {job.id: job for job in pipeline.jobs(run)}
    assert [job.task for job in jobs.values()] == THREE
    for entry, task in zip(submission["jobs"], THREE, strict=True):
        job = jobs[entry["slurm_job_id"]]
        assert (job.task, job.name, Path(job.folder)) == (task, entry["job_name"], Path(entry["remote_dir"]))
        assert Path(entry["remote_dir"]).name == task
    assert pipeline.connections() - before == 1
    assert "Evaluation submitted: " + submission["invocation_id"] in said(done)

    # launcher.yaml is what was submitted, by the launcher's own record
    config = yaml.safe_load((run / "launcher.yaml").read_text())
    database = (Path(pipeline.environment["HOME"]) / ".nemo-evaluator/exec-db/exec.v1.jsonl").read_text().splitlines()
    records = [record for line in database if (record := json.loads(line))["invocation_id"] == submission["invocation_id"]]
    assert [record["config"] for record in records] == [config] * 3

    followed = _stock(pipeline, "status", submission["invocation_id"])
    assert followed.returncode == 0, said(followed)
    assert len(re.findall(rf"{submission['invocation_id']}\.\d", followed.stdout)) == 3

    done = pipeline.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert "Evaluation submitted" not in said(done)
    assert pipeline.per_task(run) == dict.fromkeys(THREE, 1)
    assert pipeline.document(run)["jobs"] == submission["jobs"]
    assert [row["value"] for row in pipeline.document(run, "results")["rows"]] == [1.0] * 3


def _stock(pipeline: Pipeline, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".venv/bin/nemo-evaluator-launcher", *words],
        env=pipeline.environment, cwd=pipeline.project, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


# ---- Who submits at the same time ------------------------------------------------------------------------------------------------------


def test_two_terminals_on_one_run_at_once_submit_it_once(pipeline: Pipeline) -> None:
    pipeline.make("batch", "CONFIG=three", f"SET={HELD}", env={"EVALMAKE_STOP_AT": "before-prepare"})
    run = pipeline.run
    with pipeline.at_work("batch", f"RUN={run.name}") as one, pipeline.at_work("batch", f"RUN={run.name}") as other:
        texts = [process.communicate(timeout=60)[0] for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), texts
    assert sum("Evaluation submitted" in text for text in texts) == 1, texts
    assert sum("again" in text for text in texts) == 1, texts
    assert pipeline.per_task(run) == dict.fromkeys(THREE, 1)


def test_two_copies_of_one_run_in_two_clones_at_once_submit_it_once(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.make("batch", "CONFIG=three", f"SET={HELD}", env={"EVALMAKE_STOP_AT": "before-prepare"})
    run = pipeline.run
    other = Pipeline.made(pipeline.bed, tmp_path)
    shutil.copy2(pipeline.project / "configs/three.yaml", other.project / "configs")
    shutil.copytree(run, other.project / "runs" / run.name)
    with (
        gate(pipeline.bed, "sbatch") as held,
        pipeline.at_work("batch", f"RUN={run.name}") as one,
        other.at_work("batch", f"RUN={run.name}") as two,
    ):
        until(lambda: held.reached() and waiting_for_the_lock(pipeline.bed))
        held.open()
        texts = [process.communicate(timeout=60)[0] for process in (one, two)]
        assert (one.returncode, two.returncode) == (0, 0), texts
    assert pipeline.per_task(run) == dict.fromkeys(THREE, 1)
    ids = [[job["slurm_job_id"] for job in copy.document(copy.project / "runs" / run.name)["jobs"]] for copy in (pipeline, other)]
    assert ids[0] == ids[1] == [job.id for job in pipeline.jobs(run)]


# ---- Names -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("TASKS=toy sums",),
        ("SET='evaluation.tasks.0.name=\"toy sums\"'",),
        ("SET='execution.username=\"some body\"'",),
        ("SET='execution.output_dir=\"/data/a b\"'",),
        ("SET='deployment.checkpoint_path=\"/data/a b\"'",),
        ("SET='execution.account=\"re search\"'",),
        ("CONFIG=mount-with-a-space",),
    ],
    ids=lambda words: re.sub(r"\W+", "-", words[0]),
)
def test_a_name_with_a_space_is_refused_and_nothing_is_contacted(pipeline: Pipeline, words: tuple[str, ...]) -> None:
    pipeline.disconnect()
    before = pipeline.connections()
    done = pipeline.make("batch", *words)
    assert exit_code(done) == 2, said(done)
    assert re.search(r"^error: .*(space|one word|no task|path)", done.stderr, re.MULTILINE), said(done)
    assert pipeline.connections() == before


def test_a_project_in_a_folder_with_spaces_and_quotes_submits(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / """it's a "folder" $HOME"""
    folder.mkdir()
    other = Pipeline.made(pipeline.bed, folder)
    done = other.make("batch", f"SET={HELD}")
    assert done.returncode == 0, said(done)
    assert other.per_task(other.run) == {"toy.sums.0": 1, "toy.differences.1": 1}
    done = other.make("cancel")
    assert done.returncode == 0, said(done)
    assert other.per_task(other.run, alive=True) == {}


# ---- Secrets ---------------------------------------------------------------------------------------------------------------------------


class Arguments(threading.Thread):
    """Looks, as fast as it can, for a text in the command lines of all processes."""

    def __init__(self, text: str) -> None:
        super().__init__(daemon=True)
        self.text = text.encode()
        self.found: set[bytes] = set()
        self.rounds = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.rounds += 1
            for name in os.listdir("/proc"):  # noqa: PTH208  (twice as fast as Path.iterdir)
                if name.isdecimal():
                    try:
                        line = Path(f"/proc/{name}/cmdline").read_bytes()
                    except OSError:
                        continue
                    if self.text in line:
                        self.found.add(line)
            self.over.wait(0.005)


def test_secrets_arrive_unchanged_and_are_nowhere_else(pipeline: Pipeline) -> None:
    key = "planted-1f9c27d4e0"
    arrive = 'printf %s "$NASTY_VALUE" | sha256sum'
    pipeline.write_config(
        "secret",
        ["toy.sums"],
        deployment={
            "command": f"{arrive}; python3 /opt/toy/toy_model.py --port 8000",
            "env_vars": {"NASTY_VALUE": "host:NASTY_VALUE", "PLANTED": "host:PLANTED"},
        },
        evaluation={"env_vars": {"NASTY_VALUE": "host:NASTY_VALUE", "PLANTED": "host:PLANTED"}, "pre_cmd": arrive},
    )
    env = {"NASTY_VALUE": NASTY, "PLANTED": key, "NEMO_EVALUATOR_TRUST_PRE_CMD": "1"}
    looking = Arguments(key)
    looking.start()
    done = pipeline.make("batch", "CONFIG=secret", env=env)
    looking.over.set()
    looking.join()
    assert done.returncode == 0, said(done)
    assert looking.rounds > 20
    assert not looking.found
    run = pipeline.run
    (entry,) = pipeline.document(run)["jobs"]
    there = Path(entry["remote_dir"])

    # For their owner alone
    secrets = there / ".secrets.env"
    assert key in secrets.read_text()
    assert [oct(path.stat().st_mode & 0o777) for path in (there.parent, there, secrets)] == ["0o700", "0o700", "0o600"]
    for path in there.rglob("*"):
        assert not path.stat().st_mode & 0o077, path

    done = pipeline.make("eval", f"RUN={run.name}", "VERBOSE=1", env=env)
    assert done.returncode == 0, said(done)

    # Unchanged
    wanted = hashlib.sha256(NASTY.encode()).hexdigest()
    for kind in ("server", "client"):
        text = "".join(path.read_text() for path in there.glob(f"logs/{kind}-*.log"))
        assert wanted in text, f"{kind}: {text[:2000]}"

    # And nowhere else
    logs = pipeline.make("logs", f"RUN={run.name}")
    assert key not in said(done) + said(logs)
    for folder in (run, there.parent, Path(pipeline.environment["HOME"]), pipeline.project / "configs"):
        listed = [path for path in folder.rglob("*") if path.is_file()]
        assert listed
        assert [path for path in listed if key.encode() in path.read_bytes() and path.name != ".secrets.env"] == [], folder
    assert not list(run.rglob(".secrets.env"))
    told = pipeline.bed.slurm("sacct", "-P", "-n", "-S", "now-1days", "-o", "all") + pipeline.bed.slurm("scontrol", "show", "jobs")
    assert entry["slurm_job_id"] in told
    assert key not in told


# ---- How the cluster is reached --------------------------------------------------------------------------------------------------------


def test_an_alias_a_jump_host_a_port_a_key_and_a_user_are_honoured(pipeline: Pipeline) -> None:
    bed = pipeline.bed
    port = (bed.folder / "etc/settings").read_text().partition("port=")[2].split()[0]
    known = f"    HostName 127.0.0.1\n    UserKnownHostsFile {bed.name}/etc/known_hosts\n    HostKeyAlias {bed.alias}\n"
    own = f"    Port {port}\n    User root\n    IdentityFile {bed.name}/etc/user_key\n"
    override = bed.folder / "faults/ssh_config"
    # The one has all in ssh's configuration, behind a jump host; of the other, ssh itself knows only the address.
    override.write_text(f"Host em-jump\n{known}{own}    ProxyJump {bed.alias}\nHost em-bare\n{known}    Port 1\n    User nobody\n")
    pipeline.write_profile("JUMP", host="em-jump", user="root")
    pipeline.write_profile("BARE", host="em-bare", user="root", port=int(port), identity=f"{bed.name}/etc/user_key")
    try:
        pipeline.disconnect("em-jump", "em-bare", bed.alias)
        for profile, logins in (("JUMP", 2), ("BARE", 1)):
            before = pipeline.connections()
            done = pipeline.make("batch", f"PROFILE={profile}", f"SET={HELD}")
            assert done.returncode == 0, said(done)
            assert pipeline.per_task(pipeline.run) == {"toy.sums.0": 1, "toy.differences.1": 1}
            done = pipeline.make("status")
            assert "JobHeldUser" in done.stdout, said(done)
            assert pipeline.connections() - before == logins  # the jump host's own is one
    finally:
        pipeline.disconnect("em-jump", "em-bare")
        override.unlink()


# ---- On the login node itself ------------------------------------------------------------------------------------------------------------


def test_on_the_login_node_itself_the_whole_evaluation_needs_no_ssh(pipeline: Pipeline) -> None:
    before = pipeline.connections()
    listed = subprocess.run(
        ["bash", "-c", '. "$0/login-env.sh" && exec env -0', pipeline.bed.folder], env=pipeline.environment, capture_output=True, check=True
    ).stdout.decode()
    env = dict(entry.split("=", 1) for entry in listed.split("\0") if entry)
    done = pipeline.make("eval", "PROFILE=CLUSTER-LOGIN", "TASKS=toy.sums", env=env)
    assert done.returncode == 0, said(done)
    assert pipeline.document(pipeline.run, "results")["rows"]
    assert pipeline.per_task(pipeline.run) == {"toy.sums.0": 1}
    assert pipeline.connections() == before
    until(lambda: not [job for job in pipeline.jobs(pipeline.run, successors=True) if job.lives], 20)
