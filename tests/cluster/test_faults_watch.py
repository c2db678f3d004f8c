"""Whatever goes wrong while a run is at work: it is reported as it is, the run continues if it can, and no line and no result is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import faults
from cluster.gates import failing, gate
from cluster.pipeline import HELD, Pipeline, exit_code, said
from cluster.testbed import Bed, until
from cluster.watching import MODEL, Shown, alive, at_work, numbered, odd_config, sharing, statuses, until_row

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    cluster.cancel_all()
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("faults-watch"))
    made.disconnect()
    # Without a remote_job_dir images stay references, which jobs pull themselves.
    where = {"executor": "slurm", "account": "research", "partition": "batch", "host": cluster.alias, "user": "root", "time": "00:10:00"}
    made.write_profile("PULLING", extends=None, **where)
    yield made
    cluster.cancel_all()
    made.disconnect()


def submitted(pipeline: Pipeline, config: str, *words: str) -> Path:
    """The folder of a run of this config that was submitted now."""
    done = pipeline.make("batch", f"CONFIG={config}", *words)
    assert done.returncode == 0, said(done)
    return max(run for run in pipeline.runs if f"-{config}-" in run.name)


def was_killed(done: Done) -> bool:
    """Whether a script of `make` ended by SIGKILL, as Make says it."""
    return re.search(r"^make: \*\*\* .*\] (Killed|Error 137)$", done.stderr, re.MULTILINE) is not None


def one_row(pipeline: Pipeline, run: Path) -> dict[str, Any]:
    """The row of the only task of a run."""
    (row,) = statuses(pipeline, run).values()
    return row


# ---- What takes minutes, or waits for Slurm: begun at once, looked at by the tests below -------------------------------------------------

CHAIN_LINES = 380


@dataclass
class Chains:
    """Two runs with a walltime of a minute: the one needs two jobs, the other may have one."""

    resumed: Path
    exceeded: Path
    logs: Shown
    attached: Shown
    held: str


@dataclass
class Begun:
    """What is at work beside the tests."""

    chains: Chains
    servers: Future[dict[str, Path]]
    hit: Future[Hit]
    requeued: Future[Requeued]
    plain: Future[Plain]


@pytest.fixture(scope="module", autouse=True)
def begun(cluster: Bed, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    cluster.slurm("scontrol", "reconfigure")  # another session of tests may have left MinJobAge behind
    minute = {"walltime": "00:01:00"}
    odd_config(pipeline, "resumed", ["odd.numbers"], samples=CHAIN_LINES, seconds=0.25, **sharing(8101, "n1", **minute))
    more = sharing(8102, "n1", max_walltime="00:01:00", **minute)
    odd_config(pipeline, "exceeded", ["odd.numbers"], samples=CHAIN_LINES, seconds=0.25, **more)
    folder = tmp_path_factory.mktemp("plain")
    with ExitStack() as stack:
        together = stack.enter_context(ThreadPoolExecutor(6))
        resumed, exceeded = together.map(lambda config: submitted(pipeline, config), ("resumed", "exceeded"))
        hit, plain = together.submit(hit_twice, pipeline), together.submit(without_accounting, folder)
        servers, requeued = together.submit(servers_that_do_not_come, pipeline), together.submit(requeue, pipeline)
        stack.callback(lambda: plain.result().bed.down(purge=True))
        logs = stack.enter_context(at_work(pipeline, "logs", f"RUN={resumed.name}", "FOLLOW=1"))
        attached = stack.enter_context(at_work(pipeline, "eval", f"RUN={exceeded.name}"))
        # The successor is held, so that there is time to see what is between two jobs.
        jobs = until(lambda: found if len(found := pipeline.jobs(resumed, successors=True)) == 2 else [], 60)
        cluster.slurm("scontrol", "hold", jobs[1].id)
        yield Begun(Chains(resumed, exceeded, logs, attached, jobs[1].id), servers, hit, requeued, plain)


@pytest.fixture(scope="module")
def chains(begun: Begun) -> Chains:
    return begun.chains


# ---- A server that does not come ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(begun: Begun) -> dict[str, Path]:
    return begun.servers.result()


def servers_that_do_not_come(pipeline: Pipeline) -> dict[str, Path]:
    """Runs whose model server ends at once, is never healthy, or has no image; when they have ended."""
    registry = pipeline.bed.folder.joinpath("env.toml").read_text().partition('container_image = "')[2].partition("/")[0]
    values = {
        "exits": {"command": f"{MODEL} --exit-at-once 3"},
        "unhealthy": {"command": f"{MODEL} --unhealthy"},
        "noimage": {"image": f"{registry}#evalmake/none:1"},
    }
    for number, (name, deployment) in enumerate(values.items()):
        shared = sharing(8111 + number, "n1", endpoint_readiness_timeout=10)
        odd_config(pipeline, name, ["odd.numbers"], **{**shared, "deployment": {**shared["deployment"], **deployment}})
    output = f"SET=execution.output_dir={pipeline.bed.name}/jobs/evaluations"
    runs = {name: submitted(pipeline, name, *(["PROFILE=PULLING", output] if name == "noimage" else [])) for name in values}
    watched = pipeline.make("status", f"RUN={' '.join(run.name for run in runs.values())}", "WATCH=1")
    assert watched.returncode == 0, said(watched)
    return runs


def test_a_server_that_exits_is_reported_with_its_last_error_and_the_path_of_its_log(pipeline: Pipeline, servers: dict[str, Path]) -> None:
    row = one_row(pipeline, servers["exits"])
    assert row["state"] == "FAILED"
    assert "GPU memory" in row["reason"]
    assert re.search(r"/logs/server-0-\d+-0\.log$", row["log"])
    done = pipeline.make("eval", f"RUN={servers['exits'].name}")
    assert exit_code(done) == 4, said(done)
    assert f"✗ odd.numbers FAILED: {row['reason']}" in done.stderr
    assert "  > RuntimeError: CUDA out of memory (the toy model was told to say so)" in done.stderr
    assert f"  log: {row['log']}" in done.stderr


def test_a_server_that_is_never_healthy_is_reported_with_the_key_to_raise(pipeline: Pipeline, servers: dict[str, Path]) -> None:
    row = one_row(pipeline, servers["unhealthy"])
    assert row["state"] == "FAILED"
    assert "execution.endpoint_readiness_timeout" in row["reason"]


def test_an_image_that_is_not_there_is_reported(pipeline: Pipeline, servers: dict[str, Path]) -> None:
    row = one_row(pipeline, servers["noimage"])
    assert row["state"] == "FAILED"
    assert "has no such image (404)" in row["reason"]
    assert any("pyxis: " in line and "404 Not Found" in line for line in row["errors"]), row
    assert re.search(r"/logs/server-0-\d+-0\.log$", row["log"])


# ---- Jobs that Slurm takes away ----------------------------------------------------------------------------------------------------------


@dataclass
class Hit:
    """A run that was preempted, and then lost its node."""

    run: Path
    preempted: dict[str, Any]
    lost: dict[str, Any]
    code: int
    text: str


@pytest.fixture(scope="module")
def hit(begun: Begun) -> Hit:
    return begun.hit.result()


def hit_twice(pipeline: Pipeline) -> Hit:
    cluster = pipeline.bed
    odd_config(pipeline, "hit", ["odd.numbers"], samples=150, seconds=0.1, **sharing(8121, "n2"))
    run = submitted(pipeline, "hit", "PROFILE=CLUSTER-PREEMPTIBLE")
    with at_work(pipeline, "eval", f"RUN={run.name}") as attached:
        attached.until(r"odd\.numbers \| line 5 of")
        urgent = cluster.sbatch("sleep 600", "--exclusive", "--nodelist=n2")
        preempted = until_row(pipeline, run, "odd.numbers", ["RESUMING", "PREEMPTED", "FAILED"], 60)
        cluster.until_state(urgent, "RUNNING", seconds=60)
        cluster.slurm("scancel", urgent)
        attached.until(r"── .* client-\d+\.log", 90)
        attached.until(r"odd\.numbers \| line [6-9]\d of")
        with faults.node_killed(cluster, "n2"):
            cluster.slurm("scontrol", "update", "nodename=n2", "state=down", "reason=power")
            lost = until_row(pipeline, run, "odd.numbers", ["RESUMING", "NODE_FAILED", "FAILED"], 60)
        code = attached.ended(120)
        return Hit(run, preempted, lost, code, attached.text)


def test_a_preempted_task_is_resuming_while_its_node_is_taken(hit: Hit) -> None:
    assert hit.preempted["state"] == "RESUMING", hit.preempted


def test_a_task_whose_node_went_down_is_resuming(hit: Hit) -> None:
    assert hit.lost["state"] == "RESUMING", hit.lost


def test_a_task_that_was_preempted_and_lost_its_node_succeeds_in_its_third_job(pipeline: Pipeline, hit: Hit) -> None:
    assert hit.code == 0, hit.text[-1500:]
    row = one_row(pipeline, hit.run)
    assert row["state"] == "SUCCEEDED"
    assert len(row["chain"]) == 3
    assert row["slurm_job_id"] == row["chain"][-1]
    assert len(re.findall(r"── .* client-\d+\.log", hit.text)) == 2
    assert set(numbered(hit.text)) == set(range(1, 151))


@dataclass
class Requeued:
    """A run whose job was requeued."""

    run: Path
    job: str
    row: dict[str, Any]
    code: int
    text: str


def requeue(pipeline: Pipeline) -> Requeued:
    """Requeue a job that is at work, as an administrator does. Slurm takes half a minute until it is in the queue again."""
    odd_config(pipeline, "requeued", ["odd.numbers"], samples=60, seconds=0.1, **sharing(8123, "n1"))
    run = submitted(pipeline, "requeued")
    with at_work(pipeline, "eval", f"RUN={run.name}") as attached:
        attached.until(r"odd\.numbers \| line 5 of")
        (job,) = pipeline.jobs(run)
        pipeline.bed.slurm("scontrol", "update", f"jobid={job.id}", "requeue=1")
        pipeline.bed.slurm("scontrol", "requeue", job.id)
        row = until_row(pipeline, run, "odd.numbers", ["PENDING", "FAILED", "CANCELLED", "SUCCEEDED"])
        pipeline.bed.slurm("scontrol", "update", f"jobid={job.id}", "StartTime=now")
        return Requeued(run, job.id, row, attached.ended(90), attached.text)


def test_a_job_that_an_administrator_requeues_runs_again_and_succeeds(pipeline: Pipeline, begun: Begun) -> None:
    requeued = begun.requeued.result()
    assert requeued.row["state"] == "PENDING", requeued.row
    assert requeued.code == 0, requeued.text[-1500:]
    assert set(numbered(requeued.text)) == set(range(1, 61))
    assert one_row(pipeline, requeued.run)["chain"] == [requeued.job]


# ---- Walltimes ---------------------------------------------------------------------------------------------------------------------------


def test_a_walltime_that_was_reached_is_resuming_until_the_successor_starts(cluster: Bed, pipeline: Pipeline, chains: Chains) -> None:
    row = until_row(pipeline, chains.resumed, "odd.numbers", ["RESUMING", "TIMED_OUT", "FAILED"], 120)
    assert row["state"] == "RESUMING", row
    assert pipeline.jobs(chains.resumed)[0].state == "TIMEOUT"
    assert "RESUMING" in pipeline.make("status", f"RUN={chains.resumed.name}").stdout
    assert chains.logs.process.poll() is None
    cluster.slurm("scontrol", "release", chains.held)


# ---- Whoever follows is killed -----------------------------------------------------------------------------------------------------------


def test_whoever_follows_or_gathers_is_killed_and_the_same_command_continues(pipeline: Pipeline) -> None:
    odd_config(pipeline, "killed", ["odd.numbers"], samples=80, seconds=0.1, **sharing(8141, "n1"))
    run = submitted(pipeline, "killed")
    with at_work(pipeline, "eval", f"RUN={run.name}") as attached:
        attached.until(r"odd\.numbers \| line 5 of")
        os.kill(attached.child("status.py"), signal.SIGKILL)
        assert attached.ended(20) == 2
    assert len(alive(pipeline.bed, run)) == 2
    for place in ("after-fetch", "before-results"):
        done = pipeline.make("eval", f"RUN={run.name}", env={"EVALMAKE_STOP_AT": place})
        assert was_killed(done)
        assert not (run / "results.json").exists()
    done = pipeline.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, said(done)
    assert "1.000 [0.954, 1.000] (80)" in done.stdout
    assert len(pipeline.jobs(run)) == 1


@pytest.fixture(scope="module")
def stopped_before(pipeline: Pipeline) -> Path:
    """A run whose job was held in the queue, and cancelled: what is resumed of it is held again."""
    odd_config(pipeline, "again", ["odd.numbers"], **sharing(8142))
    run = submitted(pipeline, "again", f"SET={HELD}")
    assert pipeline.make("cancel", f"RUN={run.name}").returncode == 0
    return run


def resumed_once(pipeline: Pipeline, run: Path, done: Done) -> None:
    """The command found or queued the one job of the run; it is cancelled for the next test."""
    assert done.returncode == 0, said(done)
    assert pipeline.per_task(run, alive=True) == {"odd.numbers.0": 1}
    (job,) = [job.id for job in pipeline.jobs(run) if job.lives]
    assert one_row(pipeline, run)["slurm_job_id"] == job
    assert pipeline.make("cancel", f"RUN={run.name}").returncode == 0
    assert not alive(pipeline.bed, run)


def test_a_resume_that_was_killed_before_it_could_write_that_down_queues_no_second_job(pipeline: Pipeline, stopped_before: Path) -> None:
    name = f"RUN={stopped_before.name}"
    assert was_killed(pipeline.make("resume", name, env={"EVALMAKE_STOP_AT": "after-resume"}))
    resumed_once(pipeline, stopped_before, pipeline.make("resume", name))


def test_a_resume_whose_sbatch_lost_its_answer_queues_no_second_job(cluster: Bed, pipeline: Pipeline, stopped_before: Path) -> None:
    with faults.sbatch_fails(cluster, call=1, when="after"):
        done = pipeline.make("resume", f"RUN={stopped_before.name}")
    assert re.search(r"✓ odd\.numbers: .*\d+", done.stderr), said(done)
    resumed_once(pipeline, stopped_before, done)


def test_a_resume_that_is_killed_while_sbatch_is_at_work_queues_no_second_job(
    cluster: Bed, pipeline: Pipeline, stopped_before: Path
) -> None:
    name = f"RUN={stopped_before.name}"
    with gate(cluster, "sbatch") as held, at_work(pipeline, "resume", name) as first:
        until(held.reached, 30, lambda: first.text)
        os.killpg(first.process.pid, signal.SIGKILL)
        with at_work(pipeline, "resume", name) as second:
            time.sleep(2)  # the first one's script is still there and holds the lock
            held.open()
            code = second.ended(60)
            done = Done(["make"], code, "", second.text)
    resumed_once(pipeline, stopped_before, done)


# ---- Walltimes, to their end -------------------------------------------------------------------------------------------------------------


def test_a_job_chain_over_its_max_walltime_has_timed_out_with_its_fix(pipeline: Pipeline, chains: Chains) -> None:
    assert chains.attached.ended(120) == 2
    text = chains.attached.text
    assert "✗ odd.numbers TIMED_OUT: max_walltime " in text, text[-1500:]
    assert "raise execution.max_walltime" in text
    assert re.search(r"eval\] Error 4$", text, re.MULTILINE)
    assert len(one_row(pipeline, chains.exceeded)["chain"]) == 2


def test_the_successor_finishes_the_task_and_followed_logs_go_over_to_its_file(pipeline: Pipeline, chains: Chains) -> None:
    assert chains.logs.ended(120) == 0
    assert len(re.findall(r"── .* client-\d+\.log", chains.logs.text)) == 1
    assert set(numbered(chains.logs.text)) == set(range(1, CHAIN_LINES + 1))
    row = one_row(pipeline, chains.resumed)
    assert row["state"] == "SUCCEEDED"
    assert row["chain"] == [job.id for job in pipeline.jobs(chains.resumed, successors=True)[:2]]
    done = pipeline.make("eval", f"RUN={chains.resumed.name}")
    assert done.returncode == 0, said(done)
    assert f"({CHAIN_LINES})" in done.stdout


# ---- Accounting --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(pipeline: Pipeline, servers: dict[str, Path], hit: Hit) -> dict[str, Path]:
    """A run that succeeded and one that failed."""
    return {"SUCCEEDED": hit.run, "FAILED": servers["exits"]}


def test_without_accounting_s_answer_states_are_right_and_it_is_reported(cluster: Bed, pipeline: Pipeline, ended: dict[str, Path]) -> None:
    odd_config(pipeline, "meanwhile", ["odd.numbers"], samples=60, seconds=0.1, **sharing(8131, "n1"))
    run = submitted(pipeline, "meanwhile")
    until_row(pipeline, run, "odd.numbers", ["RUNNING"], 60)
    with faults.stopped(cluster, "slurmdbd"):
        done = pipeline.make("status", f"RUN={run.name} {ended['SUCCEEDED'].name} {ended['FAILED'].name}")
        assert done.returncode == 0, said(done)
        assert re.findall(r"│ ([A-Z_]+) +│", done.stdout) == ["RUNNING", "SUCCEEDED", "FAILED"]
        assert re.search(r"\[notice\] .*accounting", said(done)), said(done)
        # It ends while nobody can be asked how.
        row = until_row(pipeline, run, "odd.numbers", ["SUCCEEDED", "FAILED"], 60)
        assert row["state"] == "SUCCEEDED", row
        assert pipeline.make("eval", f"RUN={run.name}").returncode == 0


def test_an_sacct_that_is_broken_is_reported_too_and_hides_nothing(cluster: Bed, pipeline: Pipeline, ended: dict[str, Path]) -> None:
    with failing(cluster, "sacct", "sacct: error: Problem talking to the database: Connection reset by peer"):
        for state, run in ended.items():
            done = pipeline.make("status", f"RUN={run.name}")
            assert re.findall(r"│ ([A-Z_]+) +│", done.stdout) == [state]
            assert "sacct: error: Problem talking to the database: Connection reset by peer" in said(done)


# ---- A cluster without accounting --------------------------------------------------------------------------------------------------------


@dataclass
class Plain:
    """Runs on a cluster without accounting, and the rows of their status when they had ended."""

    bed: Bed
    pipeline: Pipeline
    run: Path
    cancelled: Path
    done: Done
    rows: dict[str, dict[str, Any]]
    unreachable: Done


def without_accounting(folder: Path) -> Plain:
    bed = Bed(folder / "bed", {"WITH_ACCT": "0", "NODES": "1", "HOST_ALIAS": "evalmake-plain"})
    try:
        bed.up()
        conf = bed.folder / "etc/slurm.conf"
        conf.write_text(conf.read_text() + "MinJobAge=2\n")
        bed.slurm("scontrol", "reconfigure")
        pipeline = Pipeline.made(bed, folder)
        odd_config(pipeline, "plain", ["odd.numbers", "odd.failing"])
        odd_config(pipeline, "held", ["odd.numbers"])
        cancelled = submitted(pipeline, "held", f"SET={HELD}")
        stopped = pipeline.make("cancel", f"RUN={cancelled.name}")
        assert stopped.returncode == 0, said(stopped)
        seen = {"odd.cancelled": one_row(pipeline, cancelled)}
        done = pipeline.make("eval", "CONFIG=plain")
        run = max(one for one in pipeline.runs if "-plain-" in one.name)
        rows = seen | statuses(pipeline, run)
        pipeline.disconnect()
        with faults.network(bed) as line:
            line.dead = True
            unreachable = pipeline.make("status", f"RUN={run.name}")
        return Plain(bed, pipeline, run, cancelled, done, rows, unreachable)
    except BaseException:
        bed.down(purge=True)
        raise


@pytest.fixture(scope="module")
def plain(begun: Begun) -> Plain:
    return begun.plain.result()


STATES = {"odd.cancelled": "CANCELLED", "odd.numbers": "SUCCEEDED", "odd.failing": "FAILED"}


def test_a_whole_run_works_where_accounting_is_disabled(plain: Plain) -> None:
    assert exit_code(plain.done) == 4, said(plain.done)
    assert re.search(r"odd\.numbers +│ accuracy +│ +1\.000", plain.done.stdout)
    assert re.search(r"✗ odd\.failing FAILED: .*ValueError: the odd task fails as it was told", plain.done.stderr)
    assert {task: row["state"] for task, row in plain.rows.items()} == STATES


def test_a_line_that_is_dead_is_given_up_with_exit_code_3(plain: Plain) -> None:
    done = plain.unreachable
    assert exit_code(done) == 3, said(done)
    assert "UNREACHABLE" in done.stdout
    assert re.search(r"d(oes|id) not answer", said(done))


# ---- The line, the login node and the controller -----------------------------------------------------------------------------------------

ROUGH_LINES = 700


@dataclass
class Rough:
    """What two who followed a run saw of it while the line was cut, and sshd and the controller were away."""

    run: Path
    code: int
    text: str
    logs: str
    unreachable: Done
    status_before: bytes
    status_after: bytes
    without_controller: Done


@pytest.fixture(scope="module")
def rough(cluster: Bed, pipeline: Pipeline, ended: dict[str, Path]) -> Rough:
    odd_config(pipeline, "rough", ["odd.numbers"], samples=ROUGH_LINES, seconds=0.1, **sharing(8161, "n2"))
    with ExitStack() as stack:
        with faults.network(cluster) as line:
            pipeline.disconnect()
            attached = stack.enter_context(at_work(pipeline, "eval", "CONFIG=rough"))
            attached.until(r"odd\.numbers \| line 5 of")
            run = pipeline.run
            logs = stack.enter_context(at_work(pipeline, "logs", f"RUN={run.name}", "FOLLOW=1"))
            logs.until(r"odd\.numbers \| line 5 of")
            for number in (1, 2):
                line.cut()
                attached.until(rf"(?s)(connected to \S+.*){{{number}}}", 30)
        attached.until(r"(?s)(connected to \S+.*){3}", 30)
        assert faults.kill_sessions(cluster) > 0
        attached.until(r"(?s)(connected to \S+.*){4}", 30)
        shown = pipeline.make("status", f"RUN={run.name}")
        assert shown.returncode == 0, said(shown)
        with faults.stopped(cluster, "sshd"):
            began = time.monotonic()
            pipeline.disconnect()
            before = (ended["SUCCEEDED"] / "status.json").read_bytes()
            unreachable = pipeline.make("status", f"RUN={ended['SUCCEEDED'].name}")
            after = (ended["SUCCEEDED"] / "status.json").read_bytes()
            time.sleep(max(0.0, began + 15 - time.monotonic()))
        attached.until(r"(?s)(connected to \S+.*){5}", 40)
        with faults.stopped(cluster, "slurmctld"):
            began = time.monotonic()
            without = pipeline.make("status", f"RUN={run.name} {ended['SUCCEEDED'].name} {ended['FAILED'].name}")
            time.sleep(max(0.0, began + 20 - time.monotonic()))
        # From now on the controller forgets jobs after seconds; it looks once a minute.
        conf = cluster.folder / "etc/slurm.conf"
        conf.write_text(conf.read_text() + "MinJobAge=2\n")
        cluster.slurm("scontrol", "reconfigure")
        code = attached.ended(120)
        logs.ended(30)
        return Rough(run, code, attached.text, logs.text, unreachable, before, after, without)


def test_an_attached_run_survives_cuts_of_the_line_and_a_login_node_and_a_controller_that_are_away(rough: Rough) -> None:
    assert rough.code == 0, rough.text[-1500:]
    assert f"1.000 [0.995, 1.000] ({ROUGH_LINES})" in rough.text
    assert "FAILED" not in rough.text
    assert "Traceback" not in rough.text + rough.logs


def test_over_lost_connections_no_line_is_missed_and_none_is_shown_twice(rough: Rough) -> None:
    assert numbered(rough.text) == list(range(1, ROUGH_LINES + 1))
    assert numbered(rough.logs) == list(range(1, ROUGH_LINES + 1))


def test_a_login_node_that_is_away_leaves_tasks_unreachable_with_exit_code_3_and_the_last_status_as_it_was(rough: Rough) -> None:
    assert exit_code(rough.unreachable) == 3
    assert "UNREACHABLE" in rough.unreachable.stdout
    assert "FAILED" not in said(rough.unreachable)
    assert re.search(r"^error: ", rough.unreachable.stderr, re.MULTILINE)
    assert rough.status_before == rough.status_after


def test_without_a_controller_states_come_from_accounting_and_it_is_reported(rough: Rough) -> None:
    assert rough.without_controller.returncode == 0, said(rough.without_controller)
    assert re.findall(r"│ ([A-Z_]+) +│", rough.without_controller.stdout) == ["RUNNING", "SUCCEEDED", "FAILED"]
    assert re.search(r"\[notice\] .*squeue", said(rough.without_controller)), said(rough.without_controller)


def test_what_the_controller_forgot_and_accounting_does_not_tell_has_not_failed_by_that(
    cluster: Bed, pipeline: Pipeline, rough: Rough, ended: dict[str, Path]
) -> None:
    until(lambda: not cluster.slurm("squeue", "-h", "--states=all"), 90)
    with faults.stopped(cluster, "slurmdbd"):
        assert one_row(pipeline, ended["SUCCEEDED"])["state"] == "SUCCEEDED"
        failed = one_row(pipeline, ended["FAILED"])
        assert failed["state"] == "UNKNOWN"
        assert "accounting" in failed["reason"]
    cluster.slurm("scontrol", "reconfigure")  # up.sh has written slurm.conf again
    assert one_row(pipeline, ended["FAILED"])["state"] == "FAILED"


def test_where_accounting_is_disabled_states_are_right_after_the_controller_has_forgotten_the_jobs(plain: Plain) -> None:
    bed = plain.pipeline.bed
    until(lambda: not bed.slurm("squeue", "-h", "--states=all"), 90)
    rows = {"odd.cancelled": one_row(plain.pipeline, plain.cancelled), **statuses(plain.pipeline, plain.run)}
    assert {task: row["state"] for task, row in rows.items()} == STATES
    assert "ValueError: the odd task fails as it was told" in rows["odd.failing"]["reason"]
    shown = said(plain.pipeline.make("status", f"RUN={plain.run.name}"))
    assert "accounting is disabled" in shown
