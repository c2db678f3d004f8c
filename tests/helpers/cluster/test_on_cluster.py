"""helpers/cluster/on_cluster: what is pure in the scripts, through a real bash and a double of Slurm. On a real Slurm: tests/cluster."""

from __future__ import annotations

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, ConnectionLost, Frame
from helpers.common.errors import Unreachable
from helpers.executors.slurm import verdict
from local_jobs import until
from slurm_double import SlurmDouble

HERE = Cluster("here", tunnel="local")
HOST = os.uname().nodename


@pytest.fixture
def rundir(tmp_path: Path) -> Path:
    """A run's folder on the cluster with three tasks in it."""
    folder = tmp_path / "run"
    for name in ("a.0", "b.1", "c.2"):
        for part in ("logs", "artifacts"):
            (folder / name / part).mkdir(parents=True)
        (folder / name / "run.sub").write_text(f"#!/bin/bash\n#SBATCH --job-name acc-run.{name}\n")
    return folder


def values(rundir: Path, **more: Any) -> dict[str, Any]:
    folders = sorted(path for path in rundir.iterdir() if re.search(r"\.\d$", path.name))
    return {
        "RUNDIR": str(rundir),
        "NAMES": [f"acc-run.{path.name}" for path in folders],
        "DIRS": list(map(str, folders)),
        "DAYS": 2,
        **more,
    }


def probe(scripts: Path, rundir: Path, body: str, shared: str = "", **more: Any) -> list[Frame]:
    """The frames of a script of the test's own behind common.sh (and what `shared` shares)."""
    connection.SHARED["probe"] = (shared,) if shared else ()
    try:
        (scripts / "probe.sh").write_text(f"main() {{\n{body}\nfinish\n}}\n")
        return connection._run_once(HERE, connection.script("probe", **values(rundir, **more)), 30, False)
    finally:
        del connection.SHARED["probe"]


def texts(frames: list[Frame]) -> list[str]:
    return [frame.text for frame in frames]


# ---- What was submitted before -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "submitted", "void"),
    [
        (None, "", ""),
        ("", "", ""),
        ("5\n", "5", ""),
        ("5\n7\n", "7", ""),
        ("5\nvoid 5\n", "", "5"),
        ("5\nvoid 5\n7\n", "7", "5"),
        ("5\n7\nvoid 5\n", "7", "5"),
        ("void 5\n", "", "5"),
        ("junk\n5\n\n  \n", "5", ""),
        ("5\nvoid\n7\n", "7", ""),
        ("5\n7", "5", ""),
        ("5; rm -rf /\n", "", ""),
        ("$(id)\n5\n", "5", ""),
        ("5\ncancelled\n", "5", ""),
    ],
)
def test_the_last_job_that_was_not_taken_back_counts_and_torn_lines_do_not(
    slurm: SlurmDouble, scripts: Path, rundir: Path, content: str | None, submitted: str, void: str
) -> None:
    if content is not None:
        (rundir / "a.0/.submitted").write_text(content)
    frames = probe(scripts, rundir, 'read_submitted "${DIRS[0]}"; frame submitted - "$submitted"; frame void - "${!is_void[*]}"')
    assert texts(frames) == [submitted, void]


FIRST = 'learn_folders; look_up "$DAYS"; first_job 0; frame first - "$first"'


def test_a_task_that_nobody_submitted_has_no_job(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.job(7, "RUNNING", "acc-run.b.1", rundir / "b.1")
    slurm.job(8, "RUNNING", "acc-other.a.0", rundir / "a.0")
    assert texts(probe(scripts, rundir, FIRST)) == [""]


def test_our_own_record_comes_before_the_queue_and_the_queue_before_the_job_s_own_list(
    slurm: SlurmDouble, scripts: Path, rundir: Path
) -> None:
    (rundir / "a.0/.slurm_job_id.list").write_text("junk\n4\n5\n")
    assert texts(probe(scripts, rundir, FIRST)) == ["4"]
    for number in (9, 6, 7):
        slurm.job(number, "TIMEOUT", "acc-run.a.0", rundir / "a.0")
    assert texts(probe(scripts, rundir, FIRST)) == ["6"], "the first of a chain is the lowest"
    (rundir / "a.0/.submitted").write_text("7\n")
    assert texts(probe(scripts, rundir, FIRST)) == ["7"]


def test_a_job_that_was_taken_back_is_no_job_of_the_task(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    (rundir / "a.0/.submitted").write_text("6\nvoid 6\n")
    (rundir / "a.0/.slurm_job_id.list").write_text("6\n")
    slurm.job(6, "CANCELLED", "acc-run.a.0", rundir / "a.0")
    assert texts(probe(scripts, rundir, FIRST)) == [""]


def test_a_job_of_the_name_in_another_folder_is_not_the_task_s(slurm: SlurmDouble, scripts: Path, rundir: Path, tmp_path: Path) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", tmp_path / "elsewhere/a.0")
    assert texts(probe(scripts, rundir, FIRST)) == [""]


def test_a_folder_reached_over_a_link_is_the_one_that_slurm_shows(slurm: SlurmDouble, scripts: Path, rundir: Path, tmp_path: Path) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", rundir.resolve() / "a.0")
    (tmp_path / "link").symlink_to(rundir)
    assert texts(probe(scripts, tmp_path / "link", FIRST)) == ["6"]


def test_jobs_that_the_controller_has_forgotten_are_found_in_accounting(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.job(6, "CANCELLED by 0", "acc-run.a.0", rundir / "a.0", forgotten="yes")
    assert texts(probe(scripts, rundir, FIRST + '; frame state - "${job_state[6]}"')) == ["6", "CANCELLED"]


def test_a_queue_that_does_not_answer_is_told_and_is_no_empty_queue(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    body = 'look_up "$DAYS" || frame no-queue - "$queue"'
    assert probe(scripts, rundir, body) == [Frame("no-queue", "-", b"slurm_load_jobs error: Unable to contact slurm controller")]


def test_accounting_that_does_not_answer_leaves_what_the_queue_says(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0")
    slurm.fault("sacct", "sacct: error: Problem talking to the database: Connection refused")
    assert texts(probe(scripts, rundir, FIRST)) == ["6"]


def test_who_waits_for_another_job_is_known(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", rundir / "a.0")
    slurm.job(7, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Dependency")
    slurm.job(8, "PENDING", "acc-run.a.0", rundir / "a.0", reason="DependencyNeverSatisfied")
    slurm.job(9, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Priority")
    assert texts(probe(scripts, rundir, 'look_up 2; frame waits - "$(printf "%s\\n" "${!job_waits[@]}" | sort | xargs)"')) == ["7 8"]


def test_bash_and_python_agree_on_which_jobs_are_alive(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    states = [*verdict.WAITING, *verdict.AT_WORK, *verdict.ENDED]
    frames = probe(scripts, rundir, 'for state in "${STATES[@]}"; do lives "$state" && frame alive - "$state"; done', STATES=states)
    assert set(texts(frames)) == verdict.WAITING | verdict.AT_WORK


# ---- One at a time -------------------------------------------------------------------------------------------------------------------


# What one does who has the lock: nobody else may be there meanwhile.
INSIDE = 'lock; mkdir "$RUNDIR/inside" || frame both - ""; sleep 0.05; rmdir "$RUNDIR/inside"; frame done - ""'


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def hold(rundir: Path, holder: str) -> Path:
    (rundir / ".submitting").mkdir()
    path = rundir / ".submitting" / holder
    path.write_text("")
    return path


def test_nobody_has_the_lock_when_a_script_has_ended(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    body = 'lock; frame holder - "$(ls "$RUNDIR/.submitting")"; frame mine - "$here:$$"'
    holder, mine = texts(probe(scripts, rundir, body))
    assert holder == mine == f"{HOST}:{mine.rpartition(':')[2]}"
    assert not (rundir / ".submitting").exists()


def test_a_script_that_is_told_to_end_gives_the_lock_back(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    with pytest.raises(ConnectionLost):
        probe(scripts, rundir, "lock; kill -TERM $$; sleep 5")
    assert not (rundir / ".submitting").exists()


def test_a_dead_holder_is_followed_at_once(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    with pytest.raises(ConnectionLost):
        probe(scripts, rundir, "lock; kill -KILL $$; sleep 5")
    assert len(list((rundir / ".submitting").iterdir())) == 1
    began = time.monotonic()
    assert texts(probe(scripts, rundir, INSIDE)) == [""]
    assert time.monotonic() - began < 2
    assert not (rundir / ".submitting").exists()


def test_two_and_more_at_once_go_in_one_after_the_other_also_behind_a_dead_holder(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    (scripts / "probe.sh").write_text(f"main() {{\n{INSIDE}\nfinish\n}}\n")
    text = connection.script("probe", **values(rundir))
    for number in range(6):
        if number:
            hold(rundir, f"{HOST}:{dead_pid()}")
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: connection._run_once(HERE, text, 60, False), range(6)))
        assert [[frame.kind for frame in frames] for frames in answers] == [["done"]] * 6
        assert not (rundir / ".submitting").exists()


def test_of_two_who_see_the_same_dead_holder_the_later_one_does_not_follow_the_earlier(
    slurm: SlurmDouble, scripts: Path, rundir: Path
) -> None:
    """The earlier one takes over just when the later one has seen who holds the lock: `age`, called then, stands in for it."""
    dead = hold(rundir, f"{HOST}:{dead_pid()}")
    earlier = dead.with_name(f"{HOST}:{os.getpid()}")
    body = f'age() {{ mv "{dead}" "{earlier}" 2> /dev/null; echo 0; }}; sleep() {{ SECONDS=$((SECONDS + 60)); }}\nlock; frame both - ""'
    assert probe(scripts, rundir, body) == [Frame("locked", "-", earlier.name.replace(":", " ").encode())]
    assert earlier.exists()


def test_a_live_holder_is_waited_for(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    with ThreadPoolExecutor(1) as pool, subprocess.Popen(["sleep", "60"]) as holder:
        path = hold(rundir, f"{HOST}:{holder.pid}")
        waiting = pool.submit(probe, scripts, rundir, INSIDE)
        time.sleep(1)
        assert not waiting.done()
        assert path.exists()
        holder.kill()
        holder.wait()
        assert texts(waiting.result(timeout=20)) == [""]


def test_a_holder_on_another_host_is_waited_for_and_one_that_never_lets_go_is_named(
    slurm: SlurmDouble, scripts: Path, rundir: Path
) -> None:
    path = hold(rundir, f"otherhost:{dead_pid()}")
    # Time flies: each pause takes a minute of bash's own clock, and the holder keeps touching its file.
    body = 'sleep() { SECONDS=$((SECONDS + 60)); touch "$RUNDIR"/.submitting/*; }; lock; frame not-reached - ""'
    frames = probe(scripts, rundir, body)
    assert frames == [Frame("locked", "-", path.name.replace(":", " ").encode())]
    assert path.exists()


def test_a_holder_that_touched_nothing_for_long_is_followed_and_looks_young_then(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    path = hold(rundir, "otherhost:1")
    old = time.time() - 200
    os.utime(path, (old, old))
    frames = probe(
        scripts, rundir, 'lock; frame age - "$(age "$mine")"; frame all - "$(ls "$RUNDIR/.submitting")"; frame mine - "$here:$$"'
    )
    seconds, held, mine = texts(frames)
    assert int(seconds) < 5
    assert held == mine
    assert not (rundir / ".submitting").exists()


@pytest.mark.parametrize(("seconds", "taken"), [(200, True), (10, False)])
def test_a_lock_without_a_holder_is_one_that_begins_or_was_killed_long_ago(
    slurm: SlurmDouble, scripts: Path, rundir: Path, seconds: int, taken: bool
) -> None:
    (rundir / ".submitting").mkdir()
    then = time.time() - seconds
    os.utime(rundir / ".submitting", (then, then))
    frames = probe(scripts, rundir, 'sleep() { SECONDS=$((SECONDS + 60)); }; lock; frame done - ""')
    assert [frame.kind for frame in frames] == (["done"] if taken else ["locked"])


def test_who_was_followed_takes_nothing_from_the_one_who_followed(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    """A holder that hung for long and ends after all."""
    body = 'lock; mv "$mine" "$RUNDIR/.submitting/otherhost:1"; still_here; frame done - ""'
    probe(scripts, rundir, body)
    assert [path.name for path in (rundir / ".submitting").iterdir()] == ["otherhost:1"]


def test_a_holder_at_work_stays_young(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    body = 'lock; touch -d "1 hour ago" "$mine"; still_here; frame age - "$(age "$mine")"'
    assert int(texts(probe(scripts, rundir, body))[0]) < 5


# ---- Each task once ------------------------------------------------------------------------------------------------------------------


def submit(rundir: Path, keep_partial: int = 0) -> list[tuple[str, str, str]]:
    frames = connection._run_once(HERE, connection.script("submit", **values(rundir, KEEP_PARTIAL=keep_partial)), 60, False)
    return [(frame.kind, frame.key, frame.text) for frame in frames]


def queued_once(slurm: SlurmDouble, rundir: Path) -> None:
    """Each task has one job, and it is written down."""
    jobs = slurm.jobs()
    assert sorted(job["name"] for job in jobs) == ["acc-run.a.0", "acc-run.b.1", "acc-run.c.2"]
    for job in jobs:
        assert (rundir / job["name"].removeprefix("acc-run.") / ".submitted").read_text() == f"{job['id']}\n"


def test_each_task_is_queued_once_however_often_the_script_is_given(slurm: SlurmDouble, rundir: Path) -> None:
    assert submit(rundir) == [("queued", "0", "101"), ("queued", "1", "102"), ("queued", "2", "103")]
    assert submit(rundir) == [("found", "0", "101"), ("found", "1", "102"), ("found", "2", "103")]
    queued_once(slurm, rundir)


def test_given_four_times_at_once_each_task_is_queued_once(slurm: SlurmDouble, rundir: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: submit(rundir), range(4)))
    queued_once(slurm, rundir)
    for answer in answers:
        assert [job for _, _, job in answer] == ["101", "102", "103"]
    assert sum(kind == "queued" for answer in answers for kind, _, _ in answer) == 3


@pytest.mark.parametrize("call", ["1", "2", "3"])
def test_killed_as_slurm_has_taken_a_job_the_same_script_finds_it(slurm: SlurmDouble, rundir: Path, call: str) -> None:
    slurm.fault("sbatch", "", calls=call, when="killed")
    with pytest.raises(ConnectionLost):
        submit(rundir)
    assert len(slurm.jobs()) == int(call)
    slurm.mended()
    assert len(submit(rundir)) == 3
    queued_once(slurm, rundir)


def test_an_answer_that_is_lost_after_the_job_was_queued_queues_no_second(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "Socket timed out on send/recv operation", calls="2", when="after")
    assert submit(rundir) == [("queued", "0", "101"), ("queued", "1", "102"), ("queued", "2", "103")]
    queued_once(slurm, rundir)


def test_a_controller_that_is_away_for_a_moment_is_asked_again(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller", calls="2")
    assert [kind for kind, _, _ in submit(rundir)] == ["queued"] * 3
    queued_once(slurm, rundir)
    assert len(slurm.calls("sbatch")) == 4


def test_a_task_that_is_refused_takes_back_those_before_it_and_the_next_time_all_are_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit", calls="2")
    answer = submit(rundir)
    assert [kind for kind, _, _ in answer] == ["queued", "refused", "taken-back"]
    assert answer[-1][2] == "101"
    assert [(job["id"], job["state"]) for job in slurm.jobs()] == [(101, "CANCELLED")]
    slurm.mended()
    assert submit(rundir) == [("queued", "0", "102"), ("queued", "1", "103"), ("queued", "2", "104")]
    assert (rundir / "a.0/.submitted").read_text() == "101\nvoid 101\n102\n"


def test_with_keep_partial_the_others_stay_and_the_next_time_the_one_is_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit", calls="2")
    assert [kind for kind, _, _ in submit(rundir, 1)] == ["queued", "refused", "queued"]
    slurm.mended()
    assert submit(rundir, 1) == [("found", "0", "101"), ("queued", "1", "103"), ("found", "2", "102")]
    queued_once(slurm, rundir)


def test_while_the_queue_does_not_answer_nothing_is_queued(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    assert [kind for kind, _, _ in submit(rundir)] == ["no-queue"]
    assert slurm.calls("sbatch") == []
    assert not (rundir / ".submitting").exists()


def test_a_run_folder_that_is_gone_is_told(slurm: SlurmDouble, rundir: Path) -> None:
    given = values(rundir, KEEP_PARTIAL=0)
    rundir.rename(rundir.with_name("away"))
    frames = connection._run_once(HERE, connection.script("submit", **given), 60, False)
    assert frames == [Frame("gone", "-", str(rundir).encode())]


def test_a_job_is_submitted_out_of_its_own_folder(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    assert [job["dir"] for job in slurm.jobs()] == [str((rundir / name).resolve()) for name in ("a.0", "b.1", "c.2")]


# ---- Looked at before ----------------------------------------------------------------------------------------------------------------


def prepare(rundir: Path, **more: Any) -> list[Frame]:
    given = {**values(rundir), "OUTPUT": str(rundir.parent), "PATHS": [], "SCRIPT": "#!/bin/bash\n", "PARTITION": "batch", **more}
    return connection._run_once(HERE, connection.script("prepare", **given), 60, False)


def test_before_anything_is_queued_all_is_looked_at_and_nothing_is_left_behind(slurm: SlurmDouble, rundir: Path) -> None:
    (rundir / "b.1/.submitted").write_text("7\n")
    before = sorted(rundir.rglob("*"))
    frames = prepare(rundir, PATHS=[str(rundir), str(rundir / "no such $thing")])
    by_kind: dict[str, list[str]] = {}
    for frame in frames:
        by_kind.setdefault(frame.kind, []).append(frame.text)
    assert by_kind["missing"] == [str(rundir / "no such $thing")]
    assert by_kind["job"] == ["", "7", ""]
    assert by_kind["tested"] == [""]
    assert "output" not in by_kind
    assert len(by_kind["room"][0].split()) >= 6
    assert sorted(rundir.rglob("*")) == before
    assert slurm.jobs() == []


def test_a_folder_that_cannot_be_written_is_told_in_the_system_s_words(slurm: SlurmDouble, rundir: Path) -> None:
    (rundir / "file").write_text("")
    frames = prepare(rundir, RUNDIR=str(rundir / "file" / "run"))
    assert "Not a directory" in next(frame.text for frame in frames if frame.kind == "output")


# ---- Where tasks stand ---------------------------------------------------------------------------------------------------------------


SCORES = "results: {tasks: {t: {metrics: {m: {scores: {s: {value: 0.5, stats: {count: 2, stderr: 0.1}}}}}}}}\n"


def ask(rundir: Path, scripts: Path | None = None, body: str = "ask", **more: Any) -> list[Frame]:
    given = values(rundir, **more)
    given |= {"KEYS": [f"0.{index}" for index in range(3)], "FIRSTS": ["5", "15", "25"]}
    if scripts is None:
        return connection._run_once(HERE, connection.script("ask", **given), 60, False)
    return probe(scripts, rundir, body, "asking", **{key: given[key] for key in ("KEYS", "FIRSTS")})


def of_task(frames: list[Frame], key: str = "0.0") -> dict[str, str]:
    """The frames about one task by their kind; the lines of `task` by their first word."""
    found = {frame.kind: frame.text for frame in frames if frame.key == key}
    return {**dict(line.partition(" ")[::2] for line in found.get("task", "").splitlines()), **found}


def old(*paths: Path) -> None:
    for path in paths:
        then = time.time() - 3600
        os.utime(path, (then, then))


def test_one_asking_is_one_squeue_and_one_sacct_for_all_tasks(slurm: SlurmDouble, rundir: Path) -> None:
    ask(rundir)
    assert len(slurm.calls("squeue")) == len(slurm.calls("sacct")) == 1
    assert "--name=acc-run.a.0,acc-run.b.1,acc-run.c.2" in slurm.calls("squeue")[0]


def test_the_files_of_a_task_that_has_ended_are_told(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    task = rundir / "a.0"
    (task / "artifacts/results.yml").write_text(SCORES)
    (task / "artifacts/progress").write_text("12")
    (task / ".slurm_job_id.list").write_text("5\n6\n")
    (task / "logs/client-5.log").write_bytes(b"one\ntwo \x00 three\n")
    told = of_task(ask(rundir))
    assert told["folder"] == str(task.resolve())
    assert (told["first"], told["list"], told["progress"]) == ("5", "5 6", "12")
    assert told["results"] == SCORES.strip()
    assert told["client"] == "logs/client-5.log"
    assert told["tail-client"] == "one\ntwo  three"


def test_of_a_task_at_work_neither_results_nor_ends_of_logs_are_sent(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "RUNNING", "acc-run.a.0", rundir / "a.0")
    (rundir / "a.0/logs/client-5.log").write_text("x\n")
    told = of_task(ask(rundir))
    assert told["client"] == "logs/client-5.log"
    assert "tail-client" not in told
    assert "results" not in told


@pytest.mark.parametrize("reason", ["Dependency", "DependencyNeverSatisfied", "None"])
def test_a_successor_that_waits_keeps_no_results_back(slurm: SlurmDouble, rundir: Path, reason: str) -> None:
    """It is in the queue still when the task is done; without kill_invalid_depend for ever."""
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0", reason=reason, depends="afternotok:5(unfulfilled)")
    (rundir / "a.0/artifacts/results.yml").write_text(SCORES)
    assert of_task(ask(rundir))["results"] == SCORES.strip()


def test_a_successor_that_goes_on_counts_as_at_work(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "TIMEOUT", "acc-run.a.0", rundir / "a.0")
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Priority")
    (rundir / "a.0/logs/client-5.log").write_text("x\n")
    assert "tail-client" not in of_task(ask(rundir))


def test_the_log_of_a_successor_that_only_saw_the_failure_is_passed_over(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(99, "FAILED", "acc-run.a.0", rundir / "a.0")
    slurm.job(100, "FAILED", "acc-run.a.0", rundir / "a.0")
    logs = rundir / "a.0/logs"
    (logs / "slurm-99.log").write_text("Health check timeout after 30s\n")
    (logs / "slurm-100.log").write_text("previous SLURM_JOB_ID 99 finished with 'FAILED' state. EXIT!\n")
    told = of_task(ask(rundir))
    assert told["slurm"] == "logs/slurm-99.log"
    assert told["tail-slurm"] == "Health check timeout after 30s"


def test_what_the_launcher_s_successor_says_is_what_is_looked_for(tmp_path: Path) -> None:
    from nemo_evaluator_launcher.executors.slurm import executor

    assert 'echo "$_prev_info EXIT!"' in executor._generate_autoresume_handler(tmp_path, None)
    assert "finished with '$_prev_state' state.\"" in executor._generate_autoresume_handler(tmp_path, None)
    assert "state\\. EXIT!$" in (connection.SCRIPTS / "asking.sh").read_text()


def test_the_newest_log_is_that_of_the_highest_job(slurm: SlurmDouble, rundir: Path) -> None:
    logs = rundir / "a.0/logs"
    for number in (100, 99, 9):
        (logs / f"client-{number}.log").write_text(f"of {number}\n")
        old(logs / f"client-{number}.log")
    old(logs / "client-100.log")
    assert of_task(ask(rundir))["tail-client"] == "of 100"


def test_files_that_may_not_show_yet_are_waited_for_a_while(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    log = rundir / "a.0/logs/slurm-5.log"
    log.write_text("x\n")
    assert of_task(ask(rundir))["late"] == "yes"
    old(log)
    assert "late" not in of_task(ask(rundir))
    assert sorted(path.name for path in (rundir / "a.0").iterdir()) == ["artifacts", "logs", "run.sub"], "no clock is left behind"


def test_a_folder_that_is_gone_is_told(slurm: SlurmDouble, rundir: Path) -> None:
    given = values(rundir) | {"KEYS": ["0.0"], "FIRSTS": ["5"], "NAMES": ["acc-run.a.0"], "DIRS": [str(rundir / "a.9")]}
    frames = connection._run_once(HERE, connection.script("ask", **given), 60, False)
    assert of_task(frames)["gone"] == str(rundir / "a.9")


def test_in_one_session_the_end_of_a_task_is_told_once(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    (rundir / "a.0/artifacts/results.yml").write_text(SCORES)
    frames = ask(rundir, scripts, "ask; ask; ask")
    assert sum(frame.kind == "results" for frame in frames) == 1


def test_what_was_seen_while_the_queue_did_not_answer_is_told_again(slurm: SlurmDouble, scripts: Path, rundir: Path) -> None:
    """The job was at work then, and is done when the queue answers: its results must not be missed."""
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller", calls="1")
    write = f"printf %s '{SCORES}' > {rundir}/a.0/artifacts/results.yml"
    frames = ask(rundir, scripts, f"ask; {write}; ask")
    assert [frame.kind for frame in frames if frame.key == "0.0"].count("results") == 1


def test_of_a_job_that_accounting_does_not_know_the_controller_is_asked(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "FAILED", "acc-run.a.0", rundir / "a.0", exit="3:0")
    assert not [frame for frame in ask(rundir) if frame.kind == "scontrol"]
    slurm.fault("sacct", "Slurm accounting storage is disabled")
    (told,) = [frame for frame in ask(rundir) if frame.kind == "scontrol"]
    assert told.key == "5"
    assert "ExitCode=3:0" in told.text


# ---- Cancelling and queueing again ---------------------------------------------------------------------------------------------------


def test_all_jobs_of_the_tasks_are_cancelled_the_highest_first_and_no_others(slurm: SlurmDouble, rundir: Path, tmp_path: Path) -> None:
    slurm.job(5, "RUNNING", "acc-run.a.0", rundir / "a.0")
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Dependency")
    slurm.job(7, "RUNNING", "acc-run.a.0", tmp_path / "elsewhere/a.0")
    slurm.job(8, "RUNNING", "acc-other.a.0", rundir / "a.0")
    slurm.job(9, "COMPLETED", "acc-run.b.1", rundir / "b.1")
    frames = connection._run_once(HERE, connection.script("cancel", **values(rundir, TAKE_BACK=0)), 60, False)
    assert [(frame.kind, frame.key) for frame in frames] == [("cancelled", "6"), ("cancelled", "5")]
    assert {job["id"]: job["state"] for job in slurm.jobs()} == {5: "CANCELLED", 6: "CANCELLED", 7: "RUNNING", 8: "RUNNING", 9: "COMPLETED"}
    assert (rundir / "a.0/.submitted").read_text() == "cancelled\n"
    assert not (rundir / "b.1/.submitted").exists()


def test_jobs_that_were_never_recorded_are_taken_back_and_submitted_anew(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    connection._run_once(HERE, connection.script("cancel", **values(rundir, TAKE_BACK=1)), 60, False)
    assert {job["state"] for job in slurm.jobs()} == {"CANCELLED"}
    assert [kind for kind, _, _ in submit(rundir)] == ["queued"] * 3


def resume(rundir: Path) -> list[tuple[str, str, str]]:
    frames = connection._run_once(HERE, connection.script("resume", **values(rundir)), 60, False)
    return [(frame.kind, frame.key, frame.text) for frame in frames]


def test_a_task_is_queued_again_in_its_own_folder_and_not_twice(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    for number, name in ((101, "a.0"), (102, "b.1"), (103, "c.2")):
        slurm.job(number, "FAILED", f"acc-run.{name}", (rundir / name).resolve())
    left = [".slurm_job_id.list", ".accumulated_walltime", "artifacts/.nemo_evaluator_interrupted", "artifacts/results.yml"]
    for name in left:
        (rundir / "a.0" / name).write_text("x")
    (rundir / "a.0/artifacts/kept").write_text("x")
    assert resume(rundir) == [("queued", "0", "104"), ("queued", "1", "105"), ("queued", "2", "106")]
    assert not any((rundir / "a.0" / name).exists() for name in left)
    assert (rundir / "a.0/artifacts/kept").exists()
    assert (rundir / "a.0/.submitted").read_text() == "101\n104\n"
    assert resume(rundir) == [("found", "0", "104"), ("found", "1", "105"), ("found", "2", "106")]


def test_killed_as_slurm_has_taken_it_the_resumed_job_is_found_and_written_down(slurm: SlurmDouble, rundir: Path) -> None:
    submit(rundir)
    for number, name in ((101, "a.0"), (102, "b.1"), (103, "c.2")):
        slurm.job(number, "FAILED", f"acc-run.{name}", (rundir / name).resolve())
    slurm.mended()
    slurm.fault("sbatch", "", calls="2", when="killed")
    with pytest.raises(ConnectionLost):
        resume(rundir)
    slurm.mended()
    assert resume(rundir) == [("found", "0", "104"), ("found", "1", "105"), ("queued", "2", "106")]
    assert (rundir / "b.1/.submitted").read_text() == "102\n105\n"
    assert len(slurm.jobs()) == 6


# ---- The scripts as text -------------------------------------------------------------------------------------------------------------


# Never empty: what Python gives at least one of, and function arguments that a caller has counted.
NEVER_EMPTY = {"NAMES", "DIRS", "KEYS", "FIRSTS", "@"}
# Counted before they are expanded: `((${#jobs[@]}))`.
COUNTED = {"jobs", "ids", "left", "files"}


@pytest.mark.parametrize("path", sorted(connection.SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_no_array_that_may_be_empty_is_expanded_as_bash_before_4_4_cannot(path: Path) -> None:
    """Under `set -u` an empty "${array[@]}" ends a bash 4.2 (CentOS 7): "${array[@]+…}" and counting first do not."""
    text, counts = path.read_text(), path.read_text() + (connection.SCRIPTS / "common.sh").read_text()
    for name in set(re.findall(r'(?<!\+)"\$\{(\w+)\[[@*]\]\}', text)) - NEVER_EMPTY:
        assert name in COUNTED, f"{name} in {path.name}"
        assert f"((${{#{name}[@]}}))" in counts, f"{name} in {path.name} is not counted"


def test_a_double_of_slurm_is_no_slurm(slurm: SlurmDouble, rundir: Path) -> None:
    """Were the machine's own commands called, these tests would say nothing."""
    submit(rundir)
    assert until(lambda: slurm.calls("sbatch"))
    text = connection.script("submit", **values(rundir, KEEP_PARTIAL=0))
    (slurm.bin / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(Unreachable):
        connection._run_once(HERE, text, 1, False)
