"""Acting on the jobs of a run on a cluster: cancelling them, queueing them again, copying what they wrote, and showing the queue."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.cluster import copying, scripts, slurm_words
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import console, run_folder, stopping_points
from helpers.common.console import Cell
from helpers.common.errors import StepFailed, Unreachable, one_line
from helpers.common.files import make_folder, write_text
from helpers.config import clusters
from helpers.executors.slurm.submission import days_since, script_for
from helpers.launcher import api

# A file beside what was copied here: the Slurm job that it is from, and the state of the task at that time.
BROUGHT = ".brought"
# What of a task's folder is useless here: answers kept for a resumed job, secrets, and files that are being written.
LEFT_BEHIND = ("/*/artifacts/cache/", "/*/artifacts/*_cache/", "/*/.secrets.env", "/*/.submitted", "*.db-wal", "*.db-shm")


def fetch(submission: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], interactive: bool = True) -> int:
    """Copy the folders of tasks that ended (rows of a status) to their places here, without caches and secrets; returns how many.

    A folder is copied again only if another job has worked on the task since, or its state has changed. Raises Unreachable, or StepFailed
    if this machine's disk is full.
    """
    jobs = {job["index"]: job for job in submission["jobs"]}
    wanted = []
    for row in rows:
        mark = Path(jobs[row["index"]]["job_dir"]) / BROUGHT
        job = f"{row.get('slurm_job_id')} {row['state']}"
        if not mark.exists() or mark.read_text(encoding="utf-8") != job:
            wanted.append((jobs[row["index"]], mark, job))
    if not wanted:
        return 0
    target = Path(wanted[0][0]["job_dir"]).parent
    make_folder(target)
    folders = [job["remote_dir"] for job, _, _ in wanted]
    copying.download(clusters.of_submission(submission), folders, target, LEFT_BEHIND, interactive=interactive)
    stopping_points.here("after-fetch")
    for _, mark, job in wanted:
        write_text(mark, job)
    return len(wanted)


def cancel(cluster: Cluster, names: Sequence[str], folders: Sequence[str], days: int, take_back: bool = False) -> dict[str, list[str]]:
    """Cancel every job with these names, successors included; returns the cancelled Slurm job ids by job name.

    `take_back`: the jobs belong to a submission that was never recorded, so its tasks will be submitted again. Raises Unreachable if Slurm
    did not answer, StepFailed if a job would not end.
    """
    frames = scripts.run(cluster, script_for("cancel.sh", names, folders, days, TAKE_BACK=int(take_back)), timeout=600)
    _raise_no_queue(cluster, frames, "nothing was cancelled")
    cancelled: dict[str, list[str]] = {}
    for frame in frames:
        if frame.kind == "cancelled" and frame.key not in cancelled.get(frame.text, []):
            cancelled.setdefault(frame.text, []).append(frame.key)
    if left := next((frame.text for frame in frames if frame.kind == "left"), ""):
        raise StepFailed(f"{cluster}: jobs {left} still exist a minute after scancel; run the same command again, or `scancel {left}`")
    return {name: sorted(ids, key=int) for name, ids in cancelled.items()}


def tidy(submission: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Remove the successors of tasks that succeeded (rows of a status) from the queue, where Slurm keeps them though they never start.

    They count against Slurm's limits and do no other harm, so a cluster that cannot be reached is ignored.
    """
    wanted = {row["index"] for row in rows if row["state"] == "SUCCEEDED" and row.get("waiting_successor")}
    jobs = [job for job in submission["jobs"] if job["index"] in wanted]
    if not jobs:
        return
    with contextlib.suppress(Unreachable):
        scripts.run(clusters.of_submission(submission), _script("tidy.sh", submission, jobs), interactive=False)


def resume(submission: Mapping[str, Any], tasks: Iterable[int]) -> dict[int, str]:
    """Queue these tasks (by index) again, in their own folders; returns the new Slurm job id of each. A queued task is left alone.

    Raises Unreachable if Slurm did not answer, StepFailed if it refused a task: those before it are queued.
    """
    cluster, wanted = clusters.of_submission(submission), set(tasks)
    jobs = [job for job in submission["jobs"] if job["index"] in wanted]
    frames = scripts.run(cluster, _script("resume.sh", submission, jobs), timeout=300 + 5 * len(jobs))
    stopping_points.here("after-resume")
    _raise_no_queue(cluster, frames, "the same command continues")
    queued = {jobs[int(frame.key)]["index"]: frame.text for frame in frames if frame.kind in ("found", "queued")}
    record(submission, queued)
    for frame in frames:
        if frame.kind in ("refused", "gone"):
            task = jobs[int(frame.key)]["task"] if frame.key != "-" else "the run's folder"
            why = f"{frame.text} was removed" if frame.kind == "gone" else one_line(slurm_words.refusal(frame.text))
            raise StepFailed(f"{task} cannot be queued again: {why}; fix that, then run the same command again")
    return queued


def record(submission: Mapping[str, Any], slurm_job_ids: Mapping[int, str]) -> None:
    """Note the Slurm job of each task (by index) in the launcher's job database, if it has changed."""
    for index, slurm_job_id in slurm_job_ids.items():
        api.record_resumed(f"{submission['invocation_id']}.{index}", slurm_job_id)


def _script(name: str, submission: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> str:
    days = days_since(run_folder.moment_of(submission["submitted_at"]))
    return script_for(name, [job["job_name"] for job in jobs], [job["remote_dir"] for job in jobs], days)


def _raise_no_queue(cluster: Cluster, frames: list[Frame], rest: str) -> None:
    for frame in frames:
        if frame.kind in ("no-queue", "unsure", "locked"):
            raise Unreachable(f"Slurm on {cluster} does not say which jobs exist ({one_line(frame.text)}): {rest}; try again")


def show_queue(cluster: Cluster, partition: str, most: int = 200) -> None:
    """Print the queue of a partition as a table on stdout, our own jobs first and marked. Raises Unreachable."""
    text = scripts.script("executors/slurm/queue.sh", PARTITION=partition, MOST=most)
    frames = {frame.kind: frame for frame in scripts.run(cluster, text)}
    queue = frames["queue"]
    if queue.key != "0":
        raise Unreachable(f"squeue on {cluster} does not answer ({one_line(queue.text)}); try again")
    me, rows = frames["who"].text, []
    for line in queue.text.splitlines():
        parts = line.split("|")
        if len(parts) < 9:  # noqa: PLR2004  the fields that queue.sh asks for
            continue
        number, user, state, elapsed, nodes, start, where, name, reason = parts[:9]
        why = slurm_words.pending_reason(reason) if state == "PENDING" else ""
        begins = start if state == "PENDING" and start != "N/A" else ""
        mark = Cell("ours", "cyan") if user == me else ""
        rows.append([mark, number, user, where, Cell(state, "cyan" if state == "RUNNING" else ""), elapsed, nodes, begins, name, why])
    head = ["", "job", "user", "partition", "state", "elapsed", "nodes", "expected start", "name", "reason"]
    count = int(frames["count"].text)
    title = f"{count} job{'' if count == 1 else 's'} in {partition or 'all partitions'} of {cluster}"
    console.print_table(title, head, rows, last_is_text=True)
    if count > most:
        console.say(f"only the first {most} are shown")
