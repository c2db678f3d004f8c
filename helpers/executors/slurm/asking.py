"""Asking a cluster for the state of tasks: any number of tasks and runs in one round trip, as rows of status.json."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.cluster import scripts, slurm_words
from helpers.cluster.connection import Cluster
from helpers.cluster.scripts import Frame
from helpers.common import run_folder
from helpers.common.errors import one_line
from helpers.executors import answers, endpoint_failures, job_folder, scores
from helpers.executors.slurm import failures
from helpers.executors.slurm import verdict as verdicts
from helpers.executors.slurm.submission import days_since
from helpers.executors.slurm.verdict import Job, Seen, Sources

ASK_SECONDS = 90  # squeue and sacct are given 25 each


@dataclass
class Question:
    """Tasks of one or more submissions on one cluster, by a key each, and what was seen of them so far."""

    cluster: Cluster
    submissions: list[dict[str, Any]]
    seen: dict[str, Seen] = field(default_factory=dict)
    sources: Sources = field(default_factory=lambda: Sources(False, False, False))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs of all submissions by their keys: `RUN.TASK`, both as numbers."""
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
            "DAYS": days_since(oldest),
            "COUNTING": Path(answers.__file__).read_text(encoding="utf-8"),
        }

    def take(self, frames: list[Frame]) -> None:
        """Take in the frames of one answer."""
        by_kind = {frame.kind: frame for frame in frames if frame.kind in ("squeue", "sacct")}
        controller = {int(frame.key): frame.text for frame in frames if frame.kind == "scontrol"}
        queue, account = by_kind["squeue"], by_kind["sacct"]
        self.sources = _sources(queue, account)
        jobs = self.jobs()
        shown = verdicts.jobs_of(queue.text, account.text, controller, {job["job_name"] for job in jobs.values()})
        for key, job in jobs.items():
            seen = self.seen.setdefault(key, Seen())
            _take_files(seen, key, frames)
            if seen.first is None and job["slurm_job_id"]:
                seen.first = int(job["slurm_job_id"])
            _take_jobs(seen, job, shown.get(job["job_name"], {}), self.sources)

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The rows of status.json for the submission with this number."""
        return [_row(job, self.seen[f"{number}.{job['index']}"], self.sources) for job in self.submissions[number]["jobs"]]


def ask(cluster: Cluster, submissions: list[dict[str, Any]]) -> Question:
    """Ask once, in one round trip. Raises Unreachable."""
    question = Question(cluster, submissions)
    question.take(scripts.run(cluster, scripts.script("executors/slurm/asking.sh", **question.values()), ASK_SECONDS))
    return question


def _sources(queue: Frame, account: Frame) -> Sources:
    disabled = bool(slurm_words.DISABLED.search(account.text))
    problems = []
    if queue.key != "0":
        problems.append(f"squeue did not answer ({_said(queue)})")
    if disabled:
        problems.append("accounting is disabled on this cluster: once the controller has forgotten a job, only the job's files are left")
    elif account.key != "0":
        problems.append(f"accounting did not answer ({_said(account)})")
    return Sources(queue.key == "0", account.key == "0" and not disabled, disabled, tuple(problems))


def _said(frame: Frame) -> str:
    """The last line of a Slurm command that failed."""
    if frame.key in slurm_words.STOPPED_BY_TIMEOUT:
        return "no answer within 25 s"
    lines = [line for line in frame.text.splitlines() if line.strip() and "|" not in line]
    return one_line(lines[-1] if lines else f"exit code {frame.key}")


def _take_files(seen: Seen, key: str, frames: list[Frame]) -> None:
    for frame in frames:
        if frame.key != key:
            continue
        if frame.kind == "task":
            found = dict(line.partition(" ")[::2] for line in frame.text.splitlines())
            seen.folder_missing = "missing" in found
            if seen.folder_missing:
                continue
            seen.folder = found.get("folder")
            seen.first = int(found["first"]) if found.get("first", "").isdecimal() else None
            seen.ids = [int(word) for word in found.get("list", "").split() if word.isdecimal()]
            seen.progress = int(found["progress"]) if found.get("progress", "").isdecimal() else None
            seen.has_results, seen.late, seen.cancelled = "results" in found, "late" in found, "cancelled" in found
            seen.logs = {kind: found[kind] for kind in ("client", "server", "slurm") if kind in found}
            seen.scores = seen.answers = None
        elif frame.kind == "results":
            seen.scores = scores.count(scores.rows_of(scores.parse(frame.data)))
        elif frame.kind == "answers":
            seen.answers = json.loads(frame.text or "{}").get("answers")
        elif frame.kind.startswith("tail-"):
            seen.tails[frame.kind.removeprefix("tail-")] = [line.strip() for line in frame.text.splitlines() if line.strip()]


def _take_jobs(seen: Seen, job: dict[str, Any], shown: dict[int, tuple[Job, str]], sources: Sources) -> None:
    """Take in the jobs with the task's name that lie in its folder. What did not answer this time stays as it was seen before."""
    fresh = {}
    for number, (one, folder) in shown.items():
        # Accounting may never have heard that a job ended: a job that runs is in the queue.
        if one.from_accounting and sources.queue and one.state in slurm_words.AT_WORK:
            continue
        if not folder or folder in (seen.folder, job["remote_dir"]) or seen.folder is None:
            fresh[number] = one
    complete = sources.queue and sources.accounting
    kept = {} if complete else {number: one for number, one in seen.jobs.items() if one.state in slurm_words.ENDED}
    seen.jobs = {**kept, **fresh}


def _row(job: dict[str, Any], seen: Seen, sources: Sources) -> dict[str, Any]:
    verdict = verdicts.judge(seen, sources)
    state, reason, errors, which = verdict.state, verdict.reason, [], "client"
    if state == "SUCCEEDED" and (nothing := endpoint_failures.none_scorable(seen.answers)):
        state, reason = "FAILED", nothing
    elif state not in ("SUCCEEDED", "PENDING", "RUNNING", "RESUMING", "UNKNOWN"):
        explained = failures.explain(verdict, seen)
        state, reason, errors, which = explained.state, explained.reason, explained.errors, explained.log
    log = seen.logs.get(which) or seen.logs.get("client") or seen.logs.get("server") or seen.logs.get("slurm")
    slurm_job = verdict.job
    total = job.get("samples")
    if total is None and job["job_dir"]:
        total = job_folder.number_in(Path(job["job_dir"]) / "artifacts" / "total")
    return {
        **{key: job[key] for key in ("task", "index", "job_id")},
        "state": state,
        "reason": reason,
        "exit_code": slurm_job.exit_code if slurm_job else None,
        "requests_done": seen.progress,
        "requests_total": total,
        "seconds": slurm_job.seconds if slurm_job and slurm_job.state not in slurm_words.WAITING else None,
        "log": f"{job['remote_dir']}/{log}" if log else None,
        **verdicts.document_fields(verdict, seen),
        "answers": seen.answers,
        "errors": errors,
    }
