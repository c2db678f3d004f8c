"""What is done with the jobs of a run on a cluster: cancelling them, queueing them again, and bringing home what they wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, Frame
from helpers.common import console, run_folder, stopping_points
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.common.files import make_folder, write_text
from helpers.config import clusters
from helpers.executors.slurm import submission as slurm_executor
from helpers.launcher import api

# Beside what was brought home: the Slurm job that it is of, and the state that the task had.
BROUGHT = ".brought"
# Of a task's folder, what is of use to nobody here: answers kept for a resumed job, secrets, and what is being written.
LEFT_BEHIND = ("/*/artifacts/cache/", "/*/artifacts/*_cache/", "/*/.secrets.env", "/*/.submitted", "*.db-wal", "*.db-shm")


def fetch(submission: dict[str, Any], rows: Iterable[dict[str, Any]], interactive: bool = True) -> None:
    """Bring the folders of tasks that ended (rows of a status) to their places here, without caches and secrets.

    What was brought once is not asked for again, until another job has worked on the task or its state is another. Raises Unreachable, or
    StepFailed when this machine's disk is full.
    """
    jobs = {job["index"]: job for job in submission["jobs"]}
    wanted = []
    for row in rows:
        mark = Path(jobs[row["index"]]["job_dir"]) / BROUGHT
        job = f"{row.get('slurm_job_id')} {row['state']}"
        if not mark.exists() or mark.read_text(encoding="utf-8") != job:
            wanted.append((jobs[row["index"]], mark, job))
    if not wanted:
        return
    target = Path(wanted[0][0]["job_dir"]).parent
    make_folder(target)
    connection.download(
        clusters.of_submission(submission), [job["remote_dir"] for job, _, _ in wanted], target, LEFT_BEHIND, interactive=interactive
    )
    stopping_points.here("after-fetch")
    for _, mark, job in wanted:
        write_text(mark, job)


def cancel(cluster: Cluster, names: Sequence[str], folders: Sequence[str], days: int, take_back: bool = False) -> dict[str, list[str]]:
    """Cancel every job of these names, successors included; what was cancelled, Slurm job ids by job name.

    `take_back`: the jobs belong to a submission that was never recorded, and are to be submitted anew. Raises Unreachable when Slurm could
    not be asked, StepFailed when a job would not go.
    """
    text = connection.script(
        "cancel", RUNDIR=_rundir(folders), NAMES=names, DIRS=folders, DAYS=days, TAKE_BACK=int(take_back), SLURM_SECONDS=25
    )
    frames = connection.run(cluster, text, timeout=600)
    _raise_no_queue(cluster, frames, "nothing was cancelled")
    cancelled: dict[str, list[str]] = {}
    for frame in frames:
        if frame.kind == "cancelled" and frame.key not in cancelled.get(frame.text, []):
            cancelled.setdefault(frame.text, []).append(frame.key)
    if left := next((frame.text for frame in frames if frame.kind == "left"), ""):
        raise StepFailed(f"{cluster}: jobs {left} are still there a minute after scancel; give the same command again, or `scancel {left}`")
    return {name: sorted(ids, key=int) for name, ids in cancelled.items()}


def tidy(submission: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
    """Take the successors of tasks that succeeded (rows of a status) out of the queue, in which Slurm keeps them though they never start.

    They count against Slurm's limits and do no other harm: what cannot be done now is left.
    """
    wanted = {row["index"] for row in rows if row["state"] == "SUCCEEDED" and row.get("waiting_successor")}
    jobs = [job for job in submission["jobs"] if job["index"] in wanted]
    if not jobs:
        return
    folders, days = [job["remote_dir"] for job in jobs], slurm_executor.days_since(run_folder.moment_of(submission["submitted_at"]))
    text = connection.script("tidy", RUNDIR=_rundir(folders), NAMES=[job["job_name"] for job in jobs], DIRS=folders, DAYS=days)
    with contextlib.suppress(Unreachable):
        connection.run(clusters.of_submission(submission), text, interactive=False)


def resume(submission: dict[str, Any], tasks: Iterable[int]) -> dict[int, str]:
    """Queue these tasks (by index) again, in their own folders; the new Slurm job id of each. One that is in the queue is left alone.

    Raises Unreachable when Slurm could not be asked, StepFailed when it refused one: those before it are queued.
    """
    cluster, wanted = clusters.of_submission(submission), set(tasks)
    jobs = [job for job in submission["jobs"] if job["index"] in wanted]
    folders = [job["remote_dir"] for job in jobs]
    days = slurm_executor.days_since(run_folder.moment_of(submission["submitted_at"]))
    names = [job["job_name"] for job in jobs]
    text = connection.script("resume", RUNDIR=_rundir(folders), NAMES=names, DIRS=folders, DAYS=days)
    frames = connection.run(cluster, text, timeout=300 + 5 * len(jobs))
    stopping_points.here("after-resume")
    _raise_no_queue(cluster, frames, "the same command goes on")
    queued = {jobs[int(frame.key)]["index"]: frame.text for frame in frames if frame.kind in ("found", "queued")}
    record(submission, queued)
    for frame in frames:
        if frame.kind in ("refused", "gone"):
            task = jobs[int(frame.key)]["task"] if frame.key != "-" else "the run's folder"
            why = f"{frame.text} is gone" if frame.kind == "gone" else frame.text
            raise StepFailed(f"{task} cannot be queued again: {one_line(why)}; mend that, then give the same command")
    return queued


def record(submission: dict[str, Any], slurm_job_ids: Mapping[int, str]) -> None:
    """Note in the launcher's job database the Slurm job of each task (by index), where it has another one."""
    for index, slurm_job_id in slurm_job_ids.items():
        api.record_resumed(f"{submission['invocation_id']}.{index}", slurm_job_id)


def _rundir(folders: Sequence[str]) -> str:
    return folders[0].rpartition("/")[0]


def _raise_no_queue(cluster: Cluster, frames: list[Frame], rest: str) -> None:
    for frame in frames:
        if frame.kind in ("no-queue", "unsure", "locked"):
            raise Unreachable(f"Slurm on {cluster} does not say which jobs there are ({one_line(frame.text)}): {rest}; try again")


def show_queue(cluster: Cluster, partition: str, most: int = 200) -> None:
    """The queue of a partition as a table on stdout, ours first and marked. Raises Unreachable."""
    from helpers.common.console import Cell
    from helpers.executors.slurm import verdict

    frames = {frame.kind: frame for frame in connection.run(cluster, connection.script("queue", PARTITION=partition, MOST=most))}
    queue = frames["queue"]
    if queue.key != "0":
        raise Unreachable(f"squeue on {cluster} does not answer ({one_line(queue.text)}); try again")
    me, rows = frames["who"].text, []
    for line in queue.text.splitlines():
        parts = line.split("|")
        if len(parts) < 9:  # noqa: PLR2004  the fields that queue.sh asks for
            continue
        number, user, state, elapsed, nodes, start, where, name, reason = parts[:9]
        told = verdict.reason_of(verdict.Job(0, state, reason)) if state == "PENDING" else ""
        begins = start if state == "PENDING" and start != "N/A" else ""
        mark = Cell("ours", "cyan") if user == me else ""
        rows.append([mark, number, user, where, Cell(state, "cyan" if state == "RUNNING" else ""), elapsed, nodes, begins, name, told])
    head = ["", "job", "user", "partition", "state", "elapsed", "nodes", "expected start", "name", "reason"]
    console.print_table(f"{frames['count'].text} jobs in {partition or 'all partitions'} of {cluster}", head, rows, last_is_text=True)
    if int(frames["count"].text) > most:
        console.say(f"only {most} are shown")
