"""Asking a cluster where tasks stand: any number of tasks and runs in one round trip, as rows of status.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.cluster import connection
from helpers.cluster.connection import Cluster, Frame
from helpers.common import run_folder
from helpers.common.errors import one_line
from helpers.executors import job_folder, scores
from helpers.executors.slurm import failures
from helpers.executors.slurm import submission as slurm_executor
from helpers.executors.slurm import verdict as slurm_verdict
from helpers.executors.slurm.verdict import DISABLED, Asked, Job, Seen

ASK_SECONDS = 90  # squeue and sacct are given 25 each


@dataclass
class Question:
    """Tasks of one or more submissions on one cluster, by a key each, and what was seen of them so far."""

    cluster: Cluster
    submissions: list[dict[str, Any]]
    seen: dict[str, Seen] = field(default_factory=dict)
    asked: Asked = field(default_factory=lambda: Asked(False, False, False))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs of all submissions by their keys, `RUN.TASK` in numbers."""
        return {f"{number}.{job['index']}": job for number, one in enumerate(self.submissions) for job in one["jobs"]}

    def values(self) -> dict[str, Any]:
        """The variables of asking.sh."""
        jobs = self.jobs()
        oldest = min(run_folder.moment_of(one["submitted_at"]) for one in self.submissions)
        return {
            "KEYS": list(jobs),
            "NAMES": [job["job_name"] for job in jobs.values()],
            "DIRS": [job["remote_dir"] for job in jobs.values()],
            "FIRSTS": [job["slurm_job_id"] for job in jobs.values()],
            "DAYS": slurm_executor.days_since(oldest),
        }

    def take(self, frames: list[Frame]) -> None:
        """Take in the frames of one asking."""
        by_kind = {frame.kind: frame for frame in frames if frame.kind in ("squeue", "sacct")}
        controller = {int(frame.key): frame.text for frame in frames if frame.kind == "scontrol"}
        queue, account = by_kind["squeue"], by_kind["sacct"]
        self.asked = _asked(queue, account)
        jobs = self.jobs()
        shown = slurm_verdict.jobs_of(queue.text, account.text, controller, {job["job_name"] for job in jobs.values()})
        for key, job in jobs.items():
            seen = self.seen.setdefault(key, Seen())
            _take_files(seen, key, frames)
            if seen.first is None and job["slurm_job_id"]:
                seen.first = int(job["slurm_job_id"])
            _take_jobs(seen, job, shown.get(job["job_name"], {}), self.asked)

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The rows of status.json of the submission `number`."""
        return [_row(job, self.seen[f"{number}.{job['index']}"], self.asked) for job in self.submissions[number]["jobs"]]


def ask(cluster: Cluster, submissions: list[dict[str, Any]], interactive: bool = True) -> Question:
    """Ask once, in one round trip. Raises Unreachable."""
    question = Question(cluster, submissions)
    question.take(connection.run(cluster, connection.script("ask", **question.values()), ASK_SECONDS, interactive))
    return question


def _asked(queue: Frame, account: Frame) -> Asked:
    disabled = bool(DISABLED.search(account.text))
    problems = []
    if queue.key != "0":
        problems.append(f"squeue could not be asked ({_said(queue)})")
    if disabled:
        problems.append("accounting is disabled on this cluster: of jobs that the controller has forgotten, only their files tell")
    elif account.key != "0":
        problems.append(f"accounting could not be asked ({_said(account)})")
    return Asked(queue.key == "0", account.key == "0" and not disabled, disabled, tuple(problems))


def _said(frame: Frame) -> str:
    """What a command of Slurm said that failed: its last line; 124 and 137 are the codes of one that was stopped by `timeout`."""
    if frame.key in ("124", "137"):
        return "it did not answer within 25 s"
    lines = [line for line in frame.text.splitlines() if line.strip() and "|" not in line]
    return one_line(lines[-1] if lines else f"exit code {frame.key}")


def _take_files(seen: Seen, key: str, frames: list[Frame]) -> None:
    for frame in frames:
        if frame.key != key:
            continue
        if frame.kind == "task":
            told = dict(line.partition(" ")[::2] for line in frame.text.splitlines())
            seen.folder_gone = "gone" in told
            if seen.folder_gone:
                continue
            seen.folder = told.get("folder")
            seen.first = int(told["first"]) if told.get("first", "").isdecimal() else None
            seen.ids = [int(word) for word in told.get("list", "").split() if word.isdecimal()]
            seen.progress = int(told["progress"]) if told.get("progress", "").isdecimal() else None
            seen.has_results, seen.late, seen.cancelled = "results" in told, "late" in told, "cancelled" in told
            seen.logs = {kind: told[kind] for kind in ("client", "server", "slurm") if kind in told}
            seen.scores = None
        elif frame.kind == "results":
            seen.scores = scores.count(scores.rows_of(scores.parse(frame.data)))
        elif frame.kind.startswith("tail-"):
            seen.tails[frame.kind.removeprefix("tail-")] = [line.strip() for line in frame.text.splitlines() if line.strip()]


def _take_jobs(seen: Seen, job: dict[str, Any], shown: dict[int, tuple[Job, str]], asked: Asked) -> None:
    """The jobs of a task: those of its name that lie in its folder. What could not be asked now stays as it was seen."""
    fresh = {}
    for number, (one, folder) in shown.items():
        # Accounting may never have heard of the end of a job: what runs is in the queue.
        if one.from_accounting and asked.queue and one.state in slurm_verdict.AT_WORK:
            continue
        if not folder or folder in (seen.folder, job["remote_dir"]) or seen.folder is None:
            fresh[number] = one
    kept = (
        {} if asked.queue and asked.accounting else {number: one for number, one in seen.jobs.items() if one.state in slurm_verdict.ENDED}
    )
    seen.jobs = {**kept, **fresh}


def _row(job: dict[str, Any], seen: Seen, asked: Asked) -> dict[str, Any]:
    verdict = slurm_verdict.judge(seen, asked)
    state, reason, errors, which = verdict.state, verdict.reason, [], "client"
    if state not in ("SUCCEEDED", "PENDING", "RUNNING", "RESUMING", "UNKNOWN"):
        explained = failures.explain(verdict, seen)
        state, reason, errors, which = explained.state, explained.reason, explained.errors, explained.log
    log = seen.logs.get(which) or seen.logs.get("client") or seen.logs.get("server") or seen.logs.get("slurm")
    slurm_job = verdict.job
    total = job.get("samples")
    local = Path(job["job_dir"]) if job["job_dir"] else None
    if local and total is None:
        total = job_folder.number_in(local / "artifacts" / "total")
    return {
        "task": job["task"],
        "index": job["index"],
        "job_id": job["job_id"],
        "state": state,
        "reason": reason,
        "exit_code": slurm_job.exit_code if slurm_job else None,
        "requests_done": seen.progress,
        "requests_total": total,
        "seconds": slurm_job.seconds if slurm_job and slurm_job.state not in slurm_verdict.WAITING else None,
        "log": f"{job['remote_dir']}/{log}" if log else None,
        **slurm_verdict.document_fields(verdict, seen),
        "errors": errors,
    }
