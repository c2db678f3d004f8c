"""Whatever goes wrong while a run is submitted: the same command continues, no task has two jobs, and none is forgotten."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import faults
from cluster.gates import failing, gate, waiting_for_the_lock
from cluster.pipeline import Pipeline, exit_code, said
from cluster.testbed import Bed, until

THREE = ["toy.sums.0", "toy.differences.1", "toy.sums.2"]
ONCE = dict.fromkeys(THREE, 1)
REFUSED = "Batch job submission failed: Invalid account or account/partition combination specified"
SILENT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("faults"))
    held = {"sbatch_extra_flags": {"exclusive": True, "hold": True}}
    made.config = made.write_config("held", ["toy.sums", "toy.differences", "toy.sums"], execution=held)
    for name in HOSTS:
        made.write_profile(name.upper(), host=name, **({"user": "nobody"} if name == "em-denied" else {}))
    made.write_profile("FULL", remote_job_dir=str(cluster.name / "small/jobs"))
    made.write_profile("CLOSED", remote_job_dir=str(cluster.name / "readonly/jobs"))
    return made


@pytest.fixture(autouse=True)
def _empty_queue(pipeline: Pipeline) -> Iterator[None]:
    yield
    pipeline.scancel()


def killed_at(pipeline: Pipeline, place: str, *words: str) -> Path:
    """The run of a submission that was killed at a stopping point."""
    done = pipeline.make("batch", *words, env={"EVALMAKE_STOP_AT": place})
    assert "137" in done.stderr or "Killed" in done.stderr, said(done)
    assert not (pipeline.run / "submission.json").exists()
    return pipeline.run


def submitted(pipeline: Pipeline, run: Path) -> None:
    """The run is recorded as submitted, with the one job of each task."""
    assert pipeline.per_task(run) == ONCE
    assert [job["slurm_job_id"] for job in pipeline.document(run)["jobs"]] == [job.id for job in pipeline.jobs(run)]


# ---- Killed ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.instants
@pytest.mark.parametrize("place", ["before-prepare", "before-upload", "before-sbatch", "after-sbatch", "before-submission"])
def test_killed_while_it_is_submitted_the_same_command_submits_each_task_once(pipeline: Pipeline, place: str) -> None:
    run = killed_at(pipeline, place)
    assert pipeline.per_task(run) == (ONCE if place in ("after-sbatch", "before-submission") else {})
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    submitted(pipeline, run)


def test_killed_after_its_jobs_were_queued_a_run_ends_well_with_the_same_command(pipeline: Pipeline) -> None:
    run = killed_at(pipeline, "after-sbatch", "CONFIG=toy")
    done = pipeline.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert pipeline.per_task(run) == {"toy.sums.0": 1, "toy.differences.1": 1}
    assert [row["value"] for row in pipeline.document(run, "results")["rows"]] == [1.0, 1.0]


def test_killed_between_two_tasks_the_next_command_waits_for_what_is_still_at_work_there(pipeline: Pipeline) -> None:
    with gate(pipeline.bed, "sbatch", call=2) as held:
        with pipeline.at_work("batch") as first:
            until(held.reached)
            os.killpg(first.pid, signal.SIGKILL)
        run = pipeline.run
        with pipeline.at_work("batch", f"RUN={run.name}") as second:
            until(lambda: waiting_for_the_lock(pipeline.bed), otherwise=lambda: str(second.poll()))
            assert held.calls == 2
            assert second.poll() is None
            held.open()
            text, _ = second.communicate(timeout=60)
        assert second.returncode == 0, text
        assert held.calls == 3
    submitted(pipeline, run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_stopped_while_the_scripts_are_copied_the_same_command_submits_each_task_once(pipeline: Pipeline, number: signal.Signals) -> None:
    with gate(pipeline.bed, "rsync") as held, pipeline.at_work("batch") as process:
        until(held.reached)
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
        held.open()
    run = pipeline.run
    assert pipeline.per_task(run) == {}
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    submitted(pipeline, run)


def test_interrupted_while_jobs_are_queued_nothing_is_forgotten_and_the_same_command_continues(pipeline: Pipeline) -> None:
    with gate(pipeline.bed, "sbatch", call=2) as held, pipeline.at_work("batch") as process:
        until(held.reached)
        os.killpg(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=90)
        assert re.search(r"Error 130|Interrupt", text), text
    run = pipeline.run
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    submitted(pipeline, run)


def test_a_run_killed_before_its_record_is_cancelled_by_name_and_submitted_again(pipeline: Pipeline) -> None:
    run = killed_at(pipeline, "after-sbatch")
    first = [job.id for job in pipeline.jobs(run)]
    done = pipeline.make("cancel", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert all(number in said(done) for number in first)
    assert pipeline.per_task(run, alive=True) == {}
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert pipeline.per_task(run, alive=True) == ONCE
    assert pipeline.per_task(run) == dict.fromkeys(THREE, 2)
    assert not set(first) & {job["slurm_job_id"] for job in pipeline.document(run)["jobs"]}


# ---- sbatch ----------------------------------------------------------------------------------------------------------------------------


def test_when_the_answer_of_sbatch_is_lost_the_job_that_it_queued_is_adopted(pipeline: Pipeline) -> None:
    with faults.sbatch_fails(pipeline.bed, call=2, when="after"):
        done = pipeline.make("batch")
    assert done.returncode == 0, said(done)
    submitted(pipeline, pipeline.run)


def test_a_passing_failure_of_sbatch_is_tried_again(pipeline: Pipeline) -> None:
    with faults.sbatch_fails(pipeline.bed, call=1):
        done = pipeline.make("batch")
    assert done.returncode == 0, said(done)
    submitted(pipeline, pipeline.run)


def test_when_the_second_of_three_is_refused_the_first_is_taken_back_and_the_same_command_submits_all(pipeline: Pipeline) -> None:
    with faults.sbatch_fails(pipeline.bed, call=2, message=REFUSED):
        done = pipeline.make("batch")
    run = pipeline.run
    assert exit_code(done) == 1, said(done)
    assert REFUSED in done.stderr
    assert pipeline.per_task(run) == {"toy.sums.0": 1}
    (first,) = pipeline.jobs(run)
    assert first.state == "CANCELLED"
    assert first.id in done.stderr
    assert not (run / "submission.json").exists()
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert pipeline.per_task(run, alive=True) == ONCE
    assert pipeline.per_task(run) == {**ONCE, "toy.sums.0": 2}


def test_over_a_limit_of_the_qos_the_last_is_refused_with_slurms_words_and_the_fix_and_the_others_are_taken_back(
    pipeline: Pipeline,
) -> None:
    done = pipeline.make("batch", "SET=execution.partition=interactive")
    assert exit_code(done) == 1, said(done)
    assert re.search(r"^error: .*toy\.sums\.2.*QOSMaxSubmitJobPerUserLimit", done.stderr, re.MULTILINE), said(done)
    assert pipeline.per_task(pipeline.run) == {"toy.sums.0": 1, "toy.differences.1": 1}
    assert pipeline.per_task(pipeline.run, alive=True) == {}


def test_with_keep_partial_the_others_stay_and_the_same_command_submits_what_is_missing(pipeline: Pipeline) -> None:
    with faults.sbatch_fails(pipeline.bed, call=2, message=REFUSED):
        done = pipeline.make("batch", "KEEP_PARTIAL=1")
    run = pipeline.run
    assert exit_code(done) == 1, said(done)
    assert REFUSED in done.stderr
    assert pipeline.per_task(run, alive=True) == {"toy.sums.0": 1, "toy.sums.2": 1}
    assert not (run / "submission.json").exists()
    done = pipeline.make("batch", f"RUN={run.name}", "KEEP_PARTIAL=1")
    assert done.returncode == 0, said(done)
    assert pipeline.per_task(run) == ONCE
    jobs = {job.task: job.id for job in pipeline.jobs(run)}
    assert [job["slurm_job_id"] for job in pipeline.document(run)["jobs"]] == [jobs[task] for task in THREE]


# ---- Slurm does not answer -------------------------------------------------------------------------------------------------------------


def test_the_controller_stops_in_the_middle_of_a_submission_and_comes_back(pipeline: Pipeline) -> None:
    with gate(pipeline.bed, "sbatch", call=2) as held, pipeline.at_work("batch") as process:
        until(held.reached)
        with faults.stopped(pipeline.bed, "slurmctld"):
            held.open()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=20)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 0 or re.search(r"^error: .*\n.*Error 3", text, re.MULTILINE), text
    run = pipeline.run
    if process.returncode:
        done = pipeline.make("batch", f"RUN={run.name}")
        assert done.returncode == 0, said(done)
    submitted(pipeline, run)


def test_without_accounting_a_run_is_submitted_once_all_the_same(pipeline: Pipeline) -> None:
    with faults.stopped(pipeline.bed, "slurmdbd"):
        run = killed_at(pipeline, "after-sbatch")
        done = pipeline.make("batch", f"RUN={run.name}")
        assert done.returncode == 0, said(done)
    submitted(pipeline, run)


def test_when_squeue_is_broken_nothing_is_queued_nor_queued_again(pipeline: Pipeline) -> None:
    with failing(pipeline.bed, "squeue", SILENT):
        done = pipeline.make("batch")
    run = pipeline.run
    assert exit_code(done) == 3, said(done)
    assert pipeline.bed.alias in done.stderr
    assert pipeline.per_task(run) == {}
    # Between the look before and sbatch
    with failing(pipeline.bed, "squeue", SILENT, after=1):
        done = pipeline.make("batch", f"RUN={run.name}")
    assert exit_code(done) == 3, said(done)
    assert pipeline.per_task(run) == {}
    done = pipeline.make("batch", f"RUN={run.name}", env={"EVALMAKE_STOP_AT": "after-sbatch"})
    assert pipeline.per_task(run) == ONCE
    # Of jobs that are there and not recorded
    with failing(pipeline.bed, "squeue", SILENT):
        done = pipeline.make("batch", f"RUN={run.name}")
    assert exit_code(done) == 3, said(done)
    assert pipeline.per_task(run) == ONCE
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    submitted(pipeline, run)


# ---- The line breaks -------------------------------------------------------------------------------------------------------------------


def test_the_line_breaks_while_the_scripts_are_copied(pipeline: Pipeline) -> None:
    with gate(pipeline.bed, "rsync") as held, pipeline.at_work("batch") as process:
        until(held.reached)
        faults.kill_sessions(pipeline.bed)
        held.open()
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0, text
    assert "[notice]" in text
    submitted(pipeline, pipeline.run)


def test_the_line_breaks_while_jobs_are_queued(pipeline: Pipeline) -> None:
    with gate(pipeline.bed, "sbatch", call=2) as held, pipeline.at_work("batch") as process:
        until(held.reached)
        faults.kill_sessions(pipeline.bed)
        # The second session waits for the first one's lock, unless the first one has died of the lost line by then.
        until(lambda: waiting_for_the_lock(pipeline.bed) or process.poll() is not None)
        held.open()
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0, text
        assert held.calls >= 3
    submitted(pipeline, pipeline.run)


# ---- Said before anything is submitted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("PROFILE=FULL",), r"small/jobs.*No space left on device.*remote_job_dir"),
        (("PROFILE=CLOSED",), r"readonly/jobs.*Read-only file system.*remote_job_dir"),
        (("SET=execution.account=nobodys",), r"Invalid account.*account"),
        (("SET=execution.partition=nowhere",), r"[Ii]nvalid partition.*partition"),
        (("SET=deployment.checkpoint_path=/no/model",), r"/no/model .*deployment\.checkpoint_path"),
        (("CONFIG=mounting",), r"/no/mount .*execution\.mounts"),
    ],
    ids=["full", "readonly", "account", "partition", "checkpoint", "mount"],
)
def test_it_is_reported_before_anything_is_queued_with_the_fix(pipeline: Pipeline, words: tuple[str, ...], problem: str) -> None:
    pipeline.write_config("mounting", execution={"mounts": {"evaluation": {"/no/mount": "/data"}}})
    with faults.disk_full(pipeline.bed):
        done = pipeline.make("batch", *words)
    assert exit_code(done) == 1, said(done)
    assert re.search(rf"^error: .*{problem}", done.stderr, re.MULTILINE), said(done)
    assert pipeline.per_task(pipeline.run) == {}
    assert not (pipeline.run / "submission.json").exists()


@pytest.mark.parametrize(
    ("setting", "notice"),
    [
        ("execution.walltime=05:00:00", r"05:00:00.*04:00:00.*batch.*time"),
        ("execution.partition=maintenance", r".*maintenance.*down"),
    ],
    ids=["walltime", "down"],
)
def test_what_slurm_takes_and_never_starts_is_reported_before_it_is_queued(pipeline: Pipeline, setting: str, notice: str) -> None:
    done = pipeline.make("batch", f"SET={setting}")
    assert done.returncode == 0, said(done)
    assert re.search(rf"^\[notice\] .*{notice}.*\n(.*\n)*.*submitted", done.stderr, re.MULTILINE), said(done)


# ---- No connection ---------------------------------------------------------------------------------------------------------------------

# By the name of the host that has it: what is wrong, in the one line that is printed, with its fix.
HOSTS = {
    "em-unresolved": r"em-unresolved.*host.*env\.toml",
    "em-refused": r"em-refused.*refuse.*port",
    "em-changed": r"em-changed.*ssh-keygen -R em-changed",
    "em-unknown": r"host key.*`ssh em-unknown`",
    "em-denied": r"nobody@em-denied.*env\.toml",
    "em-second-factor": r"password.*ssh -fN .* em-second-factor",
    "em-dead": r"em-dead.*timed out.*VPN",
    "em-no-slurm": r"Slurm.*PATH .*\.bashrc",
}


@pytest.fixture(scope="module")
def not_connected(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """What `make queue` says of each of these hosts, all asked at once: one takes its 20 seconds."""
    bed, folder = pipeline.bed, tmp_path_factory.mktemp("hosts")
    with contextlib.ExitStack() as stack:
        listening = faults.Line(1, 0)
        dead = faults.Line(int((bed.folder / "etc/settings").read_text().partition("port=")[2].split()[0]), 0)
        dead.dead = True
        stack.callback(dead.close)
        closed = listening.port
        listening.close()
        strange, bare = free_ports(2)
        key = (bed.folder / "etc/user_key.pub").read_text().split()
        (folder / "changed").write_text(f"{bed.alias} {key[0]} {key[1]}\n")
        ports = {"em-refused": closed, "em-second-factor": strange, "em-no-slurm": bare, "em-dead": dead.port}
        own = {"em-changed": f"UserKnownHostsFile {folder}/changed", "em-unknown": "UserKnownHostsFile /dev/null"}
        usual = re.search(rf"^Host {bed.alias}\n(.*)", (bed.folder / "etc/ssh_config").read_text(), re.MULTILINE | re.DOTALL)
        assert usual
        blocks = ""
        for host in HOSTS:
            name = "no-such-host.invalid" if host == "em-unresolved" else "127.0.0.1"
            first = [f"HostName {name}", f"Port {ports[host]}" if host in ports else "", own.get(host, "")]
            blocks += "\n    ".join([f"Host {host}", *filter(None, first)]) + f"\n{usual[1]}\n"
        override = bed.folder / "faults/ssh_config"
        override.write_text(blocks)
        stack.callback(override.unlink, missing_ok=True)
        stack.enter_context(second_sshd(bed, folder, strange, bare))
        pipeline.disconnect(*HOSTS)
        stack.callback(pipeline.disconnect, *HOSTS)
        asked = {host: stack.enter_context(pipeline.at_work("queue", f"PROFILE={host.upper()}")) for host in HOSTS}
        texts = {host: process.communicate(timeout=90)[0] for host, process in asked.items()}
        yield {host: subprocess.CompletedProcess([], asked[host].returncode, "", texts[host]) for host in HOSTS}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def second_sshd(bed: Bed, folder: Path, strange: int, bare: int) -> Iterator[None]:
    """Another login node: on the port `strange` it asks for a second factor, on `bare` Slurm's commands are not installed."""
    settings = (bed.folder / "etc/sshd_config").read_text()
    settings = re.sub(r"^(Port|PidFile|SetEnv|KbdInteractiveAuthentication) .*\n", "", settings, flags=re.MULTILINE)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {strange}\nPort {bare}\nPidFile {folder}/sshd.pid\nKbdInteractiveAuthentication yes\n{settings}"
        f"Match LocalPort {strange}\n    AuthenticationMethods publickey,keyboard-interactive\n"
        f"Match LocalPort {bare}\n    SetEnv PATH={folder}/bin\n"
    )
    (folder / "bin").mkdir()
    for name in ("bash", "id", "hostname", "timeout"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    serve = f"mount --bind /dev/null /etc/profile && exec /usr/sbin/sshd -D -f {config} -E {folder}/sshd.log"
    with subprocess.Popen(["unshare", "--mount", "bash", "-c", serve]) as process:
        try:
            until((folder / "sshd.pid").exists, otherwise=lambda: str(process.poll()))
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("host", HOSTS)
def test_a_connection_that_fails_is_one_line_with_its_fix_and_exit_code_3(
    not_connected: dict[str, subprocess.CompletedProcess[str]], host: str
) -> None:
    done = not_connected[host]
    assert exit_code(done) == 3, said(done)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(HOSTS[host], line), line


def test_a_submission_to_a_host_that_does_not_answer_queues_nothing_and_continues_later(pipeline: Pipeline) -> None:
    pipeline.disconnect()
    with faults.stopped(pipeline.bed, "sshd"):
        done = pipeline.make("batch")
    assert exit_code(done) == 3, said(done)
    assert re.search(rf"^error: {pipeline.bed.alias} ", done.stderr, re.MULTILINE)
    run = pipeline.run
    assert pipeline.per_task(run) == {}
    done = pipeline.make("batch", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    submitted(pipeline, run)
