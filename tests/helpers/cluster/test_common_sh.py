"""helpers/cluster/common.sh, through a real bash and a double of Slurm: which jobs exist, and one script at a time."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.cluster import scripts, slurm_words
from helpers.cluster.connection import ConnectionLost
from helpers.cluster.scripts import Frame
from slurm_double import SlurmDouble
from slurm_submissions import HERE, probe, texts, values

HOST = os.uname().nodename


# ---- What was submitted before -----------------------------------------------------------------------------------------------------------


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
    slurm: SlurmDouble, script_folder: Path, rundir: Path, content: str | None, submitted: str, void: str
) -> None:
    if content is not None:
        (rundir / "a.0/.submitted").write_text(content)
    frames = probe(script_folder, rundir, 'read_submitted "${DIRS[0]}"; frame submitted - "$submitted"; frame void - "${!is_void[*]}"')
    assert texts(frames) == [submitted, void]


FIRST = 'learn_folders; look_up "$DAYS"; first_job 0; frame first - "$first"'


def test_a_task_that_nobody_submitted_has_no_job(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.job(7, "RUNNING", "acc-run.b.1", rundir / "b.1")
    slurm.job(8, "RUNNING", "acc-other.a.0", rundir / "a.0")
    assert texts(probe(script_folder, rundir, FIRST)) == [""]


def test_our_own_record_comes_before_the_queue_and_the_queue_before_the_job_s_own_list(
    slurm: SlurmDouble, script_folder: Path, rundir: Path
) -> None:
    (rundir / "a.0/.slurm_job_id.list").write_text("junk\n4\n5\n")
    assert texts(probe(script_folder, rundir, FIRST)) == ["4"]
    for number in (9, 6, 7):
        slurm.job(number, "TIMEOUT", "acc-run.a.0", rundir / "a.0")
    assert texts(probe(script_folder, rundir, FIRST)) == ["6"], "the first of a chain is the lowest"
    (rundir / "a.0/.submitted").write_text("7\n")
    assert texts(probe(script_folder, rundir, FIRST)) == ["7"]


def test_a_job_that_was_taken_back_is_no_job_of_the_task(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    (rundir / "a.0/.submitted").write_text("6\nvoid 6\n")
    (rundir / "a.0/.slurm_job_id.list").write_text("6\n")
    slurm.job(6, "CANCELLED", "acc-run.a.0", rundir / "a.0")
    assert texts(probe(script_folder, rundir, FIRST)) == [""]


def test_a_job_of_the_name_in_another_folder_is_not_the_task_s(
    slurm: SlurmDouble, script_folder: Path, rundir: Path, tmp_path: Path
) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", tmp_path / "elsewhere/a.0")
    assert texts(probe(script_folder, rundir, FIRST)) == [""]


def test_a_folder_reached_over_a_link_is_the_one_that_slurm_shows(
    slurm: SlurmDouble, script_folder: Path, rundir: Path, tmp_path: Path
) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", rundir.resolve() / "a.0")
    (tmp_path / "link").symlink_to(rundir)
    assert texts(probe(script_folder, tmp_path / "link", FIRST)) == ["6"]


def test_jobs_that_the_controller_has_forgotten_are_found_in_accounting(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.job(6, "CANCELLED by 0", "acc-run.a.0", rundir / "a.0", forgotten="yes")
    assert texts(probe(script_folder, rundir, FIRST + '; frame state - "${job_state[6]}"')) == ["6", "CANCELLED"]


def test_a_queue_that_does_not_answer_is_reported_and_is_no_empty_queue(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    body = 'look_up "$DAYS" || frame no-queue - "$queue"'
    assert probe(script_folder, rundir, body) == [Frame("no-queue", "-", b"slurm_load_jobs error: Unable to contact slurm controller")]


def test_accounting_that_does_not_answer_leaves_what_the_queue_says(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0")
    slurm.fault("sacct", "sacct: error: Problem talking to the database: Connection refused")
    assert texts(probe(script_folder, rundir, FIRST)) == ["6"]


def test_who_waits_for_another_job_is_known(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.job(6, "RUNNING", "acc-run.a.0", rundir / "a.0")
    slurm.job(7, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Dependency")
    slurm.job(8, "PENDING", "acc-run.a.0", rundir / "a.0", reason="DependencyNeverSatisfied")
    slurm.job(9, "PENDING", "acc-run.a.0", rundir / "a.0", reason="Priority")
    assert texts(probe(script_folder, rundir, 'look_up 2; frame waits - "$(printf "%s\\n" "${!job_waits[@]}" | sort | xargs)"')) == ["7 8"]


def test_bash_and_python_agree_on_which_jobs_are_alive(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    states = [*slurm_words.WAITING, *slurm_words.AT_WORK, *slurm_words.ENDED]
    frames = probe(script_folder, rundir, 'for state in "${STATES[@]}"; do lives "$state" && frame alive - "$state"; done', STATES=states)
    assert set(texts(frames)) == slurm_words.WAITING | slurm_words.AT_WORK


# ---- One at a time -----------------------------------------------------------------------------------------------------------------------


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


def test_nobody_has_the_lock_when_a_script_has_ended(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    body = 'lock; frame holder - "$(ls "$RUNDIR/.submitting")"; frame mine - "$here:$$"'
    holder, mine = texts(probe(script_folder, rundir, body))
    assert holder == mine == f"{HOST}:{mine.rpartition(':')[2]}"
    assert not (rundir / ".submitting").exists()


def test_a_script_that_is_told_to_end_gives_the_lock_back(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    with pytest.raises(ConnectionLost):
        probe(script_folder, rundir, "lock; kill -TERM $$; sleep 5")
    assert not (rundir / ".submitting").exists()


def test_a_dead_holder_is_followed_at_once(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    with pytest.raises(ConnectionLost):
        probe(script_folder, rundir, "lock; kill -KILL $$; sleep 5")
    assert len(list((rundir / ".submitting").iterdir())) == 1
    began = time.monotonic()
    assert texts(probe(script_folder, rundir, INSIDE)) == [""]
    assert time.monotonic() - began < 2
    assert not (rundir / ".submitting").exists()


@pytest.mark.slow
def test_two_and_more_at_once_go_in_one_after_the_other_also_behind_a_dead_holder(
    slurm: SlurmDouble, script_folder: Path, rundir: Path
) -> None:
    (script_folder / "probe.sh").write_text(f"# Needs: cluster/common.sh\nmain() {{\n{INSIDE}\nfinish\n}}\n")
    text = scripts.script("probe.sh", **values(rundir))
    for number in range(6):
        if number:
            hold(rundir, f"{HOST}:{dead_pid()}")
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: scripts._run_once(HERE, text, 60, False), range(6)))
        assert [[frame.kind for frame in frames] for frames in answers] == [["done"]] * 6
        assert not (rundir / ".submitting").exists()


def test_of_two_who_see_the_same_dead_holder_the_later_one_does_not_follow_the_earlier(
    slurm: SlurmDouble, script_folder: Path, rundir: Path
) -> None:
    """The earlier one takes over just when the later one has seen who holds the lock: `age`, called then, stands in for it."""
    dead = hold(rundir, f"{HOST}:{dead_pid()}")
    earlier = dead.with_name(f"{HOST}:{os.getpid()}")
    body = f'age() {{ mv "{dead}" "{earlier}" 2> /dev/null; echo 0; }}; sleep() {{ SECONDS=$((SECONDS + 60)); }}\nlock; frame both - ""'
    assert probe(script_folder, rundir, body) == [Frame("locked", "-", earlier.name.replace(":", " ").encode())]
    assert earlier.exists()


@pytest.mark.slow
def test_a_live_holder_is_waited_for(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    with ThreadPoolExecutor(1) as pool, subprocess.Popen(["sleep", "60"]) as holder:
        path = hold(rundir, f"{HOST}:{holder.pid}")
        waiting = pool.submit(probe, script_folder, rundir, INSIDE)
        time.sleep(1)
        assert not waiting.done()
        assert path.exists()
        holder.kill()
        holder.wait()
        assert texts(waiting.result(timeout=20)) == [""]


def test_a_holder_on_another_host_is_waited_for_and_one_that_never_lets_go_is_named(
    slurm: SlurmDouble, script_folder: Path, rundir: Path
) -> None:
    path = hold(rundir, f"otherhost:{dead_pid()}")
    # Time flies: each pause takes a minute of bash's own clock, and the holder keeps touching its file.
    body = 'sleep() { SECONDS=$((SECONDS + 60)); touch "$RUNDIR"/.submitting/*; }; lock; frame not-reached - ""'
    frames = probe(script_folder, rundir, body)
    assert frames == [Frame("locked", "-", path.name.replace(":", " ").encode())]
    assert path.exists()


def test_a_holder_that_touched_nothing_for_long_is_followed_and_looks_young_then(
    slurm: SlurmDouble, script_folder: Path, rundir: Path
) -> None:
    path = hold(rundir, "otherhost:1")
    old = time.time() - 200
    os.utime(path, (old, old))
    frames = probe(
        script_folder, rundir, 'lock; frame age - "$(age "$mine")"; frame all - "$(ls "$RUNDIR/.submitting")"; frame mine - "$here:$$"'
    )
    seconds, held, mine = texts(frames)
    assert int(seconds) < 5
    assert held == mine
    assert not (rundir / ".submitting").exists()


@pytest.mark.parametrize(("seconds", "taken"), [(200, True), (10, False)])
def test_a_lock_without_a_holder_is_one_that_begins_or_was_killed_long_ago(
    slurm: SlurmDouble, script_folder: Path, rundir: Path, seconds: int, taken: bool
) -> None:
    (rundir / ".submitting").mkdir()
    then = time.time() - seconds
    os.utime(rundir / ".submitting", (then, then))
    frames = probe(script_folder, rundir, 'sleep() { SECONDS=$((SECONDS + 60)); }; lock; frame done - ""')
    assert [frame.kind for frame in frames] == (["done"] if taken else ["locked"])


def test_who_was_followed_takes_nothing_from_the_one_who_followed(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    """A holder that hung for long and ends after all."""
    body = 'lock; mv "$mine" "$RUNDIR/.submitting/otherhost:1"; still_here; frame done - ""'
    probe(script_folder, rundir, body)
    assert [path.name for path in (rundir / ".submitting").iterdir()] == ["otherhost:1"]


def test_a_holder_at_work_stays_young(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    body = 'lock; touch -d "1 hour ago" "$mine"; still_here; frame age - "$(age "$mine")"'
    assert int(texts(probe(script_folder, rundir, body))[0]) < 5
