"""asking.sh of helpers/executors/slurm, through a real bash and a double of Slurm. On a real Slurm: tests/cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.cluster import scripts
from helpers.cluster.scripts import Frame
from slurm_double import SlurmDouble
from slurm_submissions import once, probe, values

SCORES = "results: {tasks: {t: {metrics: {m: {scores: {s: {value: 0.5, stats: {count: 2, stderr: 0.1}}}}}}}}\n"


def ask(rundir: Path, script_folder: Path | None = None, body: str = "ask", **more: Any) -> list[Frame]:
    given = values(rundir, **more)
    given |= {"KEYS": [f"0.{index}" for index in range(3)], "FIRSTS": ["5", "15", "25"]}
    if script_folder is None:
        return once("asking", **given)
    return probe(script_folder, rundir, body, "executors/slurm/asking.sh", **{key: given[key] for key in ("KEYS", "FIRSTS")})


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


def test_the_files_of_a_task_that_has_ended_are_reported(slurm: SlurmDouble, rundir: Path) -> None:
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


@pytest.mark.slow
def test_answers_are_counted_once_and_again_after_the_task_ran_again(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    task, counting = rundir / "a.0", "print('{\"answers\": null}')"
    assert of_task(ask(rundir, COUNTING=counting))["answers"] == "", "there was no client"
    log = task / "logs/client-5.log"
    log.write_text("x\n")
    old(log)
    assert of_task(ask(rundir, COUNTING="raise SystemExit(1)"))["answers"] == ""
    assert of_task(ask(rundir, COUNTING=counting))["answers"] == '{"answers": null}'
    assert of_task(ask(rundir, COUNTING="print('again')"))["answers"] == '{"answers": null}'
    old(task / "answers.json")
    log.write_text("y\n")
    assert of_task(ask(rundir, COUNTING="print('again')"))["answers"] == "again"
    assert [path.name for path in task.iterdir() if path.name.startswith(".answers")] == []


def test_of_a_task_at_work_neither_results_nor_ends_of_logs_are_sent(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "RUNNING", "acc-run.a.0", rundir / "a.0")
    (rundir / "a.0/logs/client-5.log").write_text("x\n")
    told = of_task(ask(rundir))
    assert told["client"] == "logs/client-5.log"
    assert "tail-client" not in told
    assert "results" not in told
    assert "answers" not in told


@pytest.mark.parametrize("reason", ["Dependency", "DependencyNeverSatisfied", "None"])
def test_a_successor_that_waits_keeps_no_results_back(slurm: SlurmDouble, rundir: Path, reason: str) -> None:
    """It is in the queue still when the task is done; without kill_invalid_depend for ever."""
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    slurm.job(6, "PENDING", "acc-run.a.0", rundir / "a.0", reason=reason, depends="afternotok:5(unfulfilled)")
    (rundir / "a.0/artifacts/results.yml").write_text(SCORES)
    assert of_task(ask(rundir))["results"] == SCORES.strip()


def test_a_successor_that_continues_counts_as_at_work(slurm: SlurmDouble, rundir: Path) -> None:
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


@pytest.mark.parametrize("said", ["", "Previous job 99 ran for 00:00:01\n"])
def test_the_log_of_a_successor_that_has_not_yet_seen_the_failure_is_passed_over(slurm: SlurmDouble, rundir: Path, said: str) -> None:
    slurm.job(98, "FAILED", "acc-run.a.0", rundir / "a.0")  # before `make resume`
    slurm.job(99, "FAILED", "acc-run.a.0", rundir / "a.0")
    slurm.job(100, "RUNNING", "acc-run.a.0", rundir / "a.0")
    (rundir / "a.0/.submitted").write_text("98\n99\n")
    logs = rundir / "a.0/logs"
    for number, text in ((98, "of old\n"), (99, "Health check timeout after 30s\n"), (100, said)):
        (logs / f"slurm-{number}.log").write_text(text)
    told = of_task(ask(rundir))
    assert told["slurm"] == "logs/slurm-99.log"
    assert told["tail-slurm"] == "Health check timeout after 30s"
    (rundir / "a.0/.submitted").write_text("98\n99\n100\n")
    assert of_task(ask(rundir))["slurm"] == "logs/slurm-100.log", "it was queued by `make resume`"


def test_what_the_launcher_s_successor_says_is_what_is_looked_for(tmp_path: Path) -> None:
    from nemo_evaluator_launcher.executors.slurm import executor

    assert 'echo "$_prev_info EXIT!"' in executor._generate_autoresume_handler(tmp_path, None)
    assert "finished with '$_prev_state' state.\"" in executor._generate_autoresume_handler(tmp_path, None)
    assert "state\\. EXIT!$" in (scripts.HELPERS / "executors/slurm/asking.sh").read_text()


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


def test_a_folder_that_is_gone_is_reported(slurm: SlurmDouble, rundir: Path) -> None:
    given = values(rundir) | {"KEYS": ["0.0"], "FIRSTS": ["5"], "NAMES": ["acc-run.a.0"], "DIRS": [str(rundir / "a.9")]}
    frames = once("asking", **given)
    assert of_task(frames)["missing"] == str(rundir / "a.9")


def test_in_one_session_the_end_of_a_task_is_reported_once(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    (rundir / "a.0/artifacts/results.yml").write_text(SCORES)
    frames = ask(rundir, script_folder, "ask; ask; ask")
    assert sum(frame.kind == "results" for frame in frames) == 1


@pytest.mark.slow
def test_what_was_seen_while_the_queue_did_not_answer_is_told_again(slurm: SlurmDouble, script_folder: Path, rundir: Path) -> None:
    """The job was at work then, and is done when the queue answers: its results must not be missed."""
    slurm.job(5, "COMPLETED", "acc-run.a.0", rundir / "a.0")
    slurm.fault("squeue", "slurm_load_jobs error: Unable to contact slurm controller", calls="1")
    write = f"printf %s '{SCORES}' > {rundir}/a.0/artifacts/results.yml"
    frames = ask(rundir, script_folder, f"ask; {write}; ask")
    assert [frame.kind for frame in frames if frame.key == "0.0"].count("results") == 1


@pytest.mark.slow
def test_of_a_job_that_accounting_does_not_know_the_controller_is_asked(slurm: SlurmDouble, rundir: Path) -> None:
    slurm.job(5, "FAILED", "acc-run.a.0", rundir / "a.0", exit="3:0")
    assert not [frame for frame in ask(rundir) if frame.kind == "scontrol"]
    slurm.fault("sacct", "Slurm accounting storage is disabled")
    (told,) = [frame for frame in ask(rundir) if frame.kind == "scontrol"]
    assert told.key == "5"
    assert "ExitCode=3:0" in told.text
