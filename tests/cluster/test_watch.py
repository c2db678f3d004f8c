"""Runs on a real Slurm from their submission to their results: what is shown of them, and that leaving, cancelling and resuming hold."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkout import ROOT
from cluster.pipeline import HELD, Pipeline, exit_code, said
from cluster.testbed import Bed, until
from cluster.watching import MODEL, alive, at_work, numbered, odd_config, sharing, statuses, until_row

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def pipeline(cluster: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    cluster.cancel_all()
    made = Pipeline.made(cluster, tmp_path_factory.mktemp("watch"))
    yield made
    cluster.cancel_all()
    made.disconnect()


# ---- A whole run, attached ---------------------------------------------------------------------------------------------------------------


@dataclass
class Attached:
    done: Done
    run: Path
    connections: int


@pytest.fixture(scope="module")
def attached(pipeline: Pipeline) -> Attached:
    pipeline.disconnect()
    before = pipeline.connections()
    done = pipeline.make("eval")
    return Attached(done, pipeline.run, pipeline.connections() - before)


def test_an_attached_run_ends_with_0_and_its_table(attached: Attached) -> None:
    assert attached.done.returncode == 0, said(attached.done)
    for task in ("toy.sums", "toy.differences"):
        assert re.search(rf"{re.escape(task)} +│ accuracy +│ +1\.000 \[0\.439, 1\.000\] \(3\)", attached.done.stdout)


def test_an_attached_run_streams_the_logs_of_all_its_tasks_behind_their_names(attached: Attached) -> None:
    for task, question in (("toy.sums", "1+1"), ("toy.differences", "2-1")):
        lines = [line for line in attached.done.stderr.splitlines() if line.startswith(f"{task} | ")]
        assert len([line for line in lines if f'"question": "{question}"' in line]) == 1
        assert "Centralized logging configured" in lines[0]
    assert "progress tracking server" not in attached.done.stderr
    assert "\x1b" not in said(attached.done)


def test_an_attached_run_needs_one_connection(attached: Attached) -> None:
    assert attached.connections == 1


def test_an_attached_run_leaves_no_successor_in_the_queue(cluster: Bed, attached: Attached) -> None:
    until(lambda: not alive(cluster, attached.run), 10, lambda: str(alive(cluster, attached.run)))


def test_results_come_home_without_caches_and_secrets(attached: Attached) -> None:
    for folder in ("toy.sums.0", "toy.differences.1"):
        there = attached.run / "jobs" / folder
        assert (there / "artifacts/results.yml").stat().st_size > 100
        assert len(list((there / "logs").glob("client-*.log"))) == 1
        assert not [path for path in there.rglob("*") if "cache" in path.name or path.name == ".secrets.env"]


def test_results_can_be_shown_again_and_status_says_where_they_are(pipeline: Pipeline, attached: Attached) -> None:
    again = pipeline.make("results", f"RUN={attached.run.name}")
    assert again.stdout == attached.done.stdout
    shown = pipeline.make("status", f"RUN={attached.run.name}")
    assert shown.stdout.count("SUCCEEDED") == 2
    assert f"make results RUN={attached.run.name}" in shown.stderr


def test_the_stock_launcher_shows_the_run_too(pipeline: Pipeline, attached: Attached) -> None:
    assert _stock_states(pipeline, attached.run) == ["success", "success"]


# ---- Tasks that fail ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(pipeline: Pipeline) -> Attached:
    tasks = ["toy.sums", "odd.nothing", "odd.torn", "odd.impatient", "odd.failing"]
    odd_config(pipeline, "mixed", tasks, samples=2, deployment={"command": f"{MODEL} --delay 1"})
    done = pipeline.make("eval", "CONFIG=mixed")
    return Attached(done, pipeline.run, 0)


def test_an_attached_run_with_failing_tasks_ends_with_4_and_each_reason(mixed: Attached) -> None:
    assert exit_code(mixed.done) == 4, said(mixed.done)
    assert re.search(r"^error: 4 .*: odd\.nothing, odd\.torn, odd\.impatient, odd\.failing", mixed.done.stderr, re.MULTILINE)
    assert re.search(r"✗ odd\.failing FAILED: .*ValueError: the odd task fails as it was told", mixed.done.stderr)
    assert "log_failed_requests" not in "\n".join(line for line in mixed.done.stderr.splitlines() if not re.match(r"\S+ \| ", line))
    assert re.search(r"toy\.sums +│ accuracy +│ +1\.000", mixed.done.stdout)


def test_a_task_that_ends_well_without_results_or_with_half_of_them_has_failed(pipeline: Pipeline, mixed: Attached) -> None:
    rows = statuses(pipeline, mixed.run)
    assert {job.task: job.state for job in pipeline.jobs(mixed.run)}["odd.torn.2"] == "COMPLETED"
    for task, reason in (("odd.nothing", "results.yml"), ("odd.torn", "results.yml")):
        assert rows[task]["state"] == "FAILED"
        assert reason in rows[task]["reason"]
        assert f"✗ {task} FAILED: {rows[task]['reason']}" in mixed.done.stderr
    assert rows["odd.nothing"]["reason"] != rows["odd.torn"]["reason"]
    held = {entry["task"]: entry["state"] for entry in pipeline.document(mixed.run, "results")["tasks"]}
    assert held["odd.torn"] == held["odd.nothing"] == "FAILED"


def test_requests_that_time_out_come_with_the_line_that_gives_them_more_time(mixed: Attached) -> None:
    assert "✗ odd.impatient FAILED: " in mixed.done.stderr
    assert 'SET="evaluation.nemo_evaluator_config.config.params.request_timeout=7200"' in mixed.done.stderr


def test_status_shows_the_last_errors_of_a_failed_task_and_the_path_of_its_log(pipeline: Pipeline, mixed: Attached) -> None:
    shown = pipeline.make("status", f"RUN={mixed.run.name}").stdout
    remote = next(job["remote_dir"] for job in pipeline.document(mixed.run)["jobs"] if job["task"] == "odd.failing")
    assert re.search(rf"^odd\.failing: {re.escape(remote)}/logs/client-\d+\.log\n(  > .*\n)*  > ValueError: the odd", shown, re.MULTILINE)


def test_resume_queues_what_has_no_results_in_its_own_folder_and_eval_brings_it(pipeline: Pipeline, mixed: Attached) -> None:
    jobs = {job["task"]: job for job in pipeline.document(mixed.run)["jobs"]}
    (Path(jobs["odd.failing"]["remote_dir"]) / "artifacts/fixed").touch()
    done = pipeline.make("resume", f"RUN={mixed.run.name}", "TASKS=toy.sums odd.failing")
    assert done.returncode == 0, said(done)
    (number,) = re.findall(r"^✓ odd\.failing: .*?(\d+)$", done.stderr, re.MULTILINE)
    assert "toy.sums" not in done.stderr
    assert pipeline.per_task(mixed.run) == {"toy.sums.0": 1, "odd.nothing.1": 1, "odd.torn.2": 1, "odd.impatient.3": 1, "odd.failing.4": 2}
    assert {job.folder for job in pipeline.jobs(mixed.run) if job.task == "odd.failing.4"} == {jobs["odd.failing"]["remote_dir"]}
    assert _stock_states(pipeline, mixed.run)[4] in ("pending", "running")
    attached = pipeline.make("eval", f"RUN={mixed.run.name}")
    assert exit_code(attached) == 4
    assert re.search(r"odd\.failing +│ accuracy +│ +1\.000", attached.stdout)
    assert re.search(r"^error: 3 .*: odd\.nothing, odd\.torn, odd\.impatient\b(?!, odd)", attached.stderr, re.MULTILINE)
    assert statuses(pipeline, mixed.run)["odd.failing"]["slurm_job_id"] == number
    assert _stock_states(pipeline, mixed.run)[4] == "success"
    assert pipeline.document(mixed.run, "results")["rows"][-1]["task"] == "odd.failing"


# ---- Looking at a run, leaving it, coming back -------------------------------------------------------------------------------------------


@dataclass
class Followed:
    run: Path
    logs: str
    rude: str
    watch: str
    left: str
    left_code: int
    partial: Done
    results_were_written: bool
    back: Done


LINES = 240


@pytest.fixture(scope="module")
def followed(pipeline: Pipeline) -> Followed:
    """Two tasks, of which one prints numbered lines for 20 seconds: watched from their queueing on by several, one of whom leaves."""
    odd_config(pipeline, "followed", ["odd.numbers", "odd.rude"], deployment={"command": MODEL})
    document = json.loads((pipeline.project / "configs/followed.yaml").read_text())
    document["evaluation"]["tasks"][0]["nemo_evaluator_config"] = {
        "config": {"params": {"limit_samples": LINES, "extra": {"seconds": 0.08}}}
    }
    (pipeline.project / "configs/followed.yaml").write_text(json.dumps(document))
    pipeline.make("batch", "CONFIG=followed", f"SET={HELD}")
    run = pipeline.run
    name = f"RUN={run.name}"
    with (
        at_work(pipeline, "logs", name, "FOLLOW=1") as logs,
        at_work(pipeline, "logs", name, "FOLLOW=1", "TASKS=odd.rude") as rude,
        at_work(pipeline, "status", name, "WATCH=1") as watch,
        at_work(pipeline, "eval", name) as left,
    ):
        left.until("PENDING +JobHeldUser")
        watch.until("JobHeldUser")
        pipeline.release(run)
        left.until(r"odd\.numbers \| line 20 of", 60)
        left.interrupt()
        left_code = left.ended(10)
        until_row(pipeline, run, "odd.rude", ["SUCCEEDED"])
        partial = pipeline.make("results", name)
        results_were_written = (run / "results.json").exists()
        command = re.findall(r"`(make eval RUN=\S+)`", left.text)[0]
        back = pipeline.make(*shlex.split(command)[1:])
        assert logs.ended(60) == rude.ended(60) == watch.ended(60) == 0
        return Followed(run, logs.text, rude.text, watch.text, left.text, left_code, partial, results_were_written, back)


def test_logs_wait_for_files_that_are_not_there_yet_show_each_line_once_and_end_with_the_task(followed: Followed) -> None:
    assert numbered(followed.logs) == list(range(1, LINES + 1))


def test_logs_of_picked_tasks_show_no_others(followed: Followed) -> None:
    assert len(numbered(followed.rude, "odd.rude")) == 20
    assert {line.partition(" | ")[0] for line in followed.rude.splitlines() if " | " in line} == {"odd.rude"}


def test_what_a_task_prints_cannot_move_the_cursor(followed: Followed) -> None:
    assert "odd.rude | last words\n" in followed.logs
    assert not set("\x1b\x07\x08\r") & set(followed.logs + followed.left)


def test_ctrl_c_leaves_the_jobs_at_work_and_says_how_to_come_back(followed: Followed) -> None:
    assert followed.left_code == -signal.SIGINT
    assert re.search(r"Error 130$", followed.left, re.MULTILINE)
    run = followed.run.name
    text = f"detached: the jobs continue; `make eval RUN={run}` follows them again, `make cancel RUN={run}` stops them"
    assert text in followed.left
    assert "Traceback" not in followed.left
    assert numbered(followed.left)[-1] < LINES


def test_the_command_that_was_said_comes_back_and_finishes_the_run(pipeline: Pipeline, followed: Followed) -> None:
    assert followed.back.returncode == 0, said(followed.back)
    assert re.search(rf"odd\.numbers +│ accuracy +│ +1\.000 \[0\.984, 1\.000\] \({LINES}\)", followed.back.stdout)
    assert pipeline.per_task(followed.run) == {"odd.numbers.0": 1, "odd.rude.1": 1}


def test_results_show_what_there_is_while_a_task_is_at_work(followed: Followed) -> None:
    assert followed.partial.returncode == 0, said(followed.partial)
    assert re.search(r"odd\.rude +│ accuracy +│ +1\.000", followed.partial.stdout)
    assert re.search(r"odd\.numbers +│ RUNNING", followed.partial.stdout)
    assert "RUNNING" in followed.partial.stdout + followed.partial.stderr
    assert not followed.results_were_written


def test_a_watched_status_ends_by_itself_when_the_tasks_have(followed: Followed) -> None:
    assert followed.watch.index("JobHeldUser") < followed.watch.index("RUNNING") < followed.watch.rindex("SUCCEEDED")
    assert f"make results RUN={followed.run.name}" in followed.watch


def test_a_running_task_has_its_phase_in_words(followed: Followed) -> None:
    shown = followed.watch + followed.left
    assert re.search(r"RUNNING .*model server", shown)
    assert re.search(r"RUNNING .*\d\.0 s", shown)


def test_logs_of_the_server_and_of_slurm_and_a_last_line_without_an_end(pipeline: Pipeline, followed: Followed) -> None:
    server = pipeline.make("logs", f"RUN={followed.run.name}", "WHICH=server")
    assert server.stdout.count("| the toy model listens on 8000\n") == 2
    slurm = pipeline.make("logs", f"RUN={followed.run.name}", "WHICH=slurm", "TASKS=odd.rude")
    assert "odd.rude | server ready on 127.0.0.1!\n" in slurm.stdout
    remote = Path(next(job["remote_dir"] for job in pipeline.document(followed.run)["jobs"] if job["task"] == "odd.rude"))
    (log,) = (remote / "logs").glob("client-*.log")
    with log.open("a") as file:
        file.write("it was cut off he")
    assert pipeline.make("logs", f"RUN={followed.run.name}", "TASKS=odd.rude").stdout.endswith("\nodd.rude | it was cut off he\n")
    assert "odd.numbers, odd.rude" in pipeline.make("logs", f"RUN={followed.run.name}", "TASKS=odd.rood").stderr


# ---- Waiting in the queue ----------------------------------------------------------------------------------------------------------------


@dataclass
class Waiting:
    first: Path
    second: Path
    blockers: tuple[str, str]
    foreign: str


@pytest.fixture(scope="module")
def waiting(cluster: Bed, pipeline: Pipeline) -> Waiting:
    """Both nodes are taken; a run of two tasks and one in a partition with a limit wait, and so does somebody else."""
    blockers = (cluster.sbatch("sleep 600", "--exclusive", "--partition=interactive"), cluster.sbatch("sleep 600", "--exclusive"))
    for job in blockers:
        cluster.until_state(job, "RUNNING", seconds=60)
    foreign = cluster.slurm(
        "sbatch", "--parsable", "--uid=nobody", "--account=research", "--output=/dev/null", "--chdir=/", "--hold", "--wrap=sleep 1",
        "--job-name=somebodys", "--exclusive",
    ).strip()  # fmt: skip
    pipeline.make("batch")
    first = pipeline.run
    odd_config(pipeline, "one", ["odd.numbers"])
    pipeline.make("batch", "CONFIG=one", "SET=execution.partition=interactive")
    until(lambda: "QOSMaxJobsPerUserLimit" in cluster.slurm("squeue", "-h", "-o", "%r"), 30)
    return Waiting(first, pipeline.run, blockers, foreign)


def test_a_task_that_waits_shows_slurm_s_reason_a_sentence_and_when_it_is_expected(pipeline: Pipeline, waiting: Waiting) -> None:
    def rows() -> dict[str, object]:
        found = statuses(pipeline, waiting.first)
        return found if all(row["expected_start"] and row["reason"][0] in "RP" for row in found.values()) else {}

    found = until(rows, 60, lambda: str(statuses(pipeline, waiting.first)))
    reasons = {row["reason"] for row in found.values()}  # type: ignore[index]
    assert reasons <= {
        "Resources: insufficient available nodes: waiting until enough are free", "Priority: waiting for resources: other jobs come first"
    }  # fmt: skip
    assert any(reason.startswith("Resources") for reason in reasons)
    assert any(reason.startswith("Priority") for reason in reasons)
    shown = " ".join(pipeline.make("status", f"RUN={waiting.first.name}").stdout.replace("│", " ").split())
    assert "PENDING" in shown
    assert re.search(r"expected start\s+\d{4}-", shown)


def test_the_status_of_two_runs_costs_one_ssh_session(pipeline: Pipeline, waiting: Waiting, tmp_path: Path) -> None:
    log = tmp_path / "ssh.log"
    before = pipeline.connections()
    done = pipeline.make("status", f"RUN={waiting.first.name} {waiting.second.name}", env={"BED_SSH_LOG": str(log)})
    assert done.returncode == 0, said(done)
    assert done.stdout.count("Invocation ") == 2
    assert "QOSMaxJobsPerUserLimit" in done.stdout
    assert len(log.read_text().splitlines()) == 1
    assert pipeline.connections() == before
    for run in (waiting.first, waiting.second):
        assert {job["state"] for job in pipeline.document(run, "status")["jobs"]} == {"PENDING"}


def test_the_status_of_two_runs_as_json_is_one_line_per_run(pipeline: Pipeline, waiting: Waiting) -> None:
    rows = statuses(pipeline, waiting.first, waiting.second)
    assert list(rows) == ["0/toy.sums", "0/toy.differences", "1/odd.numbers"]
    assert rows["1/odd.numbers"]["reason"] == "QOSMaxJobsPerUserLimit: user job limit reached: it starts when another job of yours ends"


def test_the_queue_shows_the_jobs_of_others_and_marks_ours(pipeline: Pipeline, waiting: Waiting) -> None:
    done = pipeline.make("queue", "PROFILE=CLUSTER", env={"COLUMNS": "250"})
    assert done.returncode == 0, said(done)
    lines = {number: line for number in (waiting.foreign, *waiting.blockers) for line in done.stdout.splitlines() if f" {number} " in line}
    assert "nobody" in lines[waiting.foreign]
    assert "ours" not in lines[waiting.foreign]
    assert "ours" in lines[waiting.blockers[1]]
    assert waiting.blockers[0] not in lines  # in another partition
    assert "toy.sums.0" in done.stdout


def test_cancelling_two_runs_says_what_was_cancelled_and_leaves_everything_else(cluster: Bed, pipeline: Pipeline, waiting: Waiting) -> None:
    ids = [job.id for run in (waiting.first, waiting.second) for job in pipeline.jobs(run)]
    done = pipeline.make("cancel", f"RUN={waiting.first.name} {waiting.second.name}")
    assert done.returncode == 0, said(done)
    assert sorted(re.findall(r"cancelled (\d+);", done.stderr)) == ids
    assert not alive(cluster, waiting.first) + alive(cluster, waiting.second)
    assert {row["state"] for row in statuses(pipeline, waiting.first, waiting.second).values()} == {"CANCELLED"}
    assert {cluster.state(job) for job in waiting.blockers} == {"RUNNING"}
    assert cluster.state(waiting.foreign).startswith("PENDING")
    again = pipeline.make("cancel", f"RUN={waiting.first.name}")
    assert re.search("nothing", again.stderr)
    cluster.slurm("scancel", *waiting.blockers, waiting.foreign)


# ---- Cancelling what is at work ----------------------------------------------------------------------------------------------------------


@dataclass
class Cancelled:
    run: Path
    one: Done
    other_state: str
    jobs: list[str]
    rest: Done
    when: float


@pytest.fixture(scope="module")
def cancelled(cluster: Bed, pipeline: Pipeline) -> Cancelled:
    """Two tasks at work, each with a successor in the queue; one is cancelled, then the run."""
    odd_config(pipeline, "long", ["odd.numbers", "odd.rude"], samples=6000, seconds=0.1)
    pipeline.make("batch", "CONFIG=long")
    run = pipeline.run
    # Each has its successor in the queue: two more jobs.
    until(lambda: len(alive(cluster, run)) == 4, 60, lambda: str(alive(cluster, run)))
    one = pipeline.make("cancel", f"RUN={run.name}", "TASKS=odd.rude")
    other = statuses(pipeline, run)["odd.numbers"]["state"]
    rude = [line for line in alive(cluster, run) if "odd.rude" in line]
    rest = pipeline.make("cancel", f"RUN={run.name}")
    return Cancelled(run, one, other, rude, rest, time.monotonic())


def test_cancelling_a_task_ends_its_whole_chain_and_no_other(pipeline: Pipeline, cancelled: Cancelled) -> None:
    assert cancelled.one.returncode == 0, said(cancelled.one)
    chain = [job.id for job in pipeline.jobs(cancelled.run, successors=True) if job.task == "odd.rude.1"]
    assert len(chain) == 2
    assert re.search(rf"✓ odd\.rude: .*{', '.join(chain)}", cancelled.one.stderr)
    assert "odd.numbers" not in cancelled.one.stderr
    assert cancelled.jobs == []
    assert cancelled.other_state == "RUNNING"


def test_a_cancelled_run_is_shown_as_cancelled_with_its_fix(pipeline: Pipeline, cancelled: Cancelled) -> None:
    assert cancelled.rest.returncode == 0, said(cancelled.rest)
    rows = statuses(pipeline, cancelled.run)
    assert {row["state"] for row in rows.values()} == {"CANCELLED"}
    assert "`make resume`" in rows["odd.numbers"]["reason"]
    assert exit_code(pipeline.make("eval", f"RUN={cancelled.run.name}")) == 4


# ---- A cluster that keeps successors which can never run ---------------------------------------------------------------------------------


def test_a_successor_that_can_never_run_is_not_taken_for_the_task(cluster: Bed, pipeline: Pipeline) -> None:
    conf = cluster.folder / "etc/slurm.conf"
    before = conf.read_text()
    odd_config(pipeline, "quick", ["odd.numbers", "odd.failing"], samples=2)
    try:
        conf.write_text(before.replace("DependencyParameters=kill_invalid_depend", ""))
        cluster.slurm("scontrol", "reconfigure")
        pipeline.make("batch", "CONFIG=quick")
        run = pipeline.run
        done = pipeline.make("status", f"RUN={run.name}", "WATCH=1")
        assert done.returncode == 0, said(done)
        (left,) = until(lambda: [line for line in alive(cluster, run) if "NeverSatisfied" in line], 20, lambda: str(alive(cluster, run)))
        assert "odd.numbers.0" in left
        shown = pipeline.make("status", f"RUN={run.name}").stdout
        assert "`make results" in done.stderr
        assert re.search(r"odd\.numbers +│ +\d+ +│ SUCCEEDED", shown)
        assert "NeverSatisfied" not in shown + done.stdout + done.stderr
        (Path(pipeline.document(run)["jobs"][1]["remote_dir"]) / "artifacts/fixed").touch()
        resumed = pipeline.make("resume", f"RUN={run.name}")
        assert re.search(r"✓ odd\.failing: .*\d+", resumed.stderr), said(resumed)
        # Who stays until the end takes them out of the queue.
        assert pipeline.make("eval", f"RUN={run.name}").returncode == 0
        assert not alive(cluster, run)
        assert {row["state"] for row in statuses(pipeline, run).values()} == {"SUCCEEDED"}
    finally:
        conf.write_text(before)
        cluster.slurm("scontrol", "reconfigure")


# ---- Several runs on one node ------------------------------------------------------------------------------------------------------------


def test_runs_that_share_a_node_do_not_meet(cluster: Bed, pipeline: Pipeline) -> None:
    runs = []
    for port in (8201, 8202):
        odd_config(pipeline, f"shared{port}", ["toy.sums"], samples=2, **sharing(port, "n1"))
        pipeline.make("batch", f"CONFIG=shared{port}")
        runs.append(pipeline.run)
    done = pipeline.make("status", f"RUN={runs[0].name} {runs[1].name}", "WATCH=1")
    assert done.returncode == 0, said(done)
    assert [pipeline.make("results", f"RUN={run.name}").stdout.count("1.000 [") for run in runs] == [1, 1]


def test_nothing_of_a_cancelled_run_has_started_again(cluster: Bed, pipeline: Pipeline, cancelled: Cancelled) -> None:
    time.sleep(max(0.0, cancelled.when + 10 - time.monotonic()))
    assert not alive(cluster, cancelled.run)
    assert len(pipeline.jobs(cancelled.run, successors=True)) == 4
    assert {row["state"] for row in statuses(pipeline, cancelled.run).values()} == {"CANCELLED"}


def _stock_states(pipeline: Pipeline, run: Path) -> list[str]:
    """What the stock launcher says of each task of a run."""
    invocation = pipeline.document(run)["invocation_id"]
    launcher = ROOT / ".venv/bin/nemo-evaluator-launcher"
    done = subprocess.run(
        [launcher, "status", invocation, "--json"],
        env=pipeline.environment, capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return [str(job["status"]).lower() for job in json.loads(done.stdout[done.stdout.index("[") :])]
