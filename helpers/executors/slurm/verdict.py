"""The state of a task on Slurm, from its jobs, with the reason in a sentence. Pure: contacts nothing.

A task on Slurm is a chain of jobs of one name. As soon as a job starts, it queues its successor with `afternotok` (the launcher's
executors/slurm/executor.py, _generate_autoresume_handler). After a job that ended TIMEOUT, PREEMPTED or NODE_FAIL, the successor resumes
the task. After any other end the successor starts, sees how its predecessor ended, and exits. It looks that up in accounting: without
accounting no job is ever resumed.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from helpers.cluster.slurm_words import AT_WORK, DEPENDENCY, NEVER, REASONS, WAITING, exit_code_of, pending_reason, seconds_of

# Slurm's words for jobs that will not change any more (slurm_words.ENDED), in the words of executors/states.py.
ENDED = {
    "COMPLETED": "SUCCEEDED",
    "FAILED": "FAILED",
    "CANCELLED": "CANCELLED",
    "REVOKED": "CANCELLED",
    "TIMEOUT": "TIMED_OUT",
    "DEADLINE": "TIMED_OUT",
    "OUT_OF_MEMORY": "OUT_OF_MEMORY",
    "NODE_FAIL": "NODE_FAILED",
    "BOOT_FAIL": "NODE_FAILED",
    "PREEMPTED": "PREEMPTED",
}
# A successor resumes the task after these only.
RESUMED = frozenset({"TIMEOUT", "PREEMPTED", "NODE_FAIL"})


@dataclass
class Job:
    """One Slurm job as squeue, sacct or scontrol showed it. `start`: as Slurm writes it; `seconds`: elapsed."""

    id: int
    state: str
    reason: str = ""
    start: str | None = None
    seconds: float | None = None
    exit_code: int | None = None
    waits_for_another: bool = False
    ran_out_of_memory: bool = False
    from_accounting: bool = False


@dataclass
class Seen:
    """Everything that was seen of one task: its jobs, and what its folder held. `tails`: the last lines of the newest log of each kind."""

    first: int | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    has_results: bool = False
    scores: int | None = None  # how many scores results.yml has; None: it was not read
    answers: dict[str, Any] | None = None  # what the endpoint's answers carried (answers.counts); None: not known
    progress: int | None = None
    logs: dict[str, str] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    late: bool = False  # the job may have ended so recently that its last files are not visible yet
    folder_missing: bool = False
    cancelled: bool = False  # by us, according to the task's folder
    folder: str | None = None


@dataclass(frozen=True)
class Sources:
    """Which parts of Slurm answered: squeue; accounting; or accounting is disabled. `problems`: a sentence for each that did not."""

    queue: bool
    accounting: bool
    disabled: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The state of a task."""

    state: str
    reason: str
    job: Job | None
    attempt: int
    chain: tuple[int, ...]


def judge(seen: Seen, sources: Sources) -> Verdict:
    """The state of one task."""
    jobs = [job for number, job in sorted(seen.jobs.items()) if seen.first is None or number >= seen.first]
    walk = [job for job in jobs if not _is_waiting(job) and not _never_began(job, seen)]
    if not walk:
        waiting = [job for job in jobs if _is_waiting(job)]
        state, reason = _unseen(seen, sources, waiting=any(job.reason != NEVER for job in waiting))
        return Verdict(state, reason, waiting[-1] if waiting else None, 1, tuple(seen.ids))
    active, attempt = walk[0], 1
    for job in walk[1:]:
        if active.state not in RESUMED or sources.disabled:
            break
        active, attempt = job, attempt + 1
    later = [job for job in jobs if job.id > active.id and job.state not in ENDED]
    state, reason = _of(active, attempt, bool(later), seen, sources)
    return Verdict(state, reason, active, attempt, tuple(job.id for job in walk[:attempt]))


def _is_waiting(job: Job) -> bool:
    """Whether a job is a successor that waits for its predecessor."""
    return job.state == "PENDING" and (job.waits_for_another or job.reason.startswith(DEPENDENCY))


def _never_began(job: Job, seen: Seen) -> bool:
    """Whether a job is a successor that left the queue unused, and Slurm remembers it longer than its predecessor."""
    return job.state == "CANCELLED" and not job.seconds and seen.first not in {None, job.id, *seen.jobs} and job.id not in seen.ids


def _of(job: Job, attempt: int, has_successor: bool, seen: Seen, sources: Sources) -> tuple[str, str]:
    if job.state in WAITING:
        return ("RESUMING" if attempt > 1 else "PENDING"), pending_reason(job.reason)
    if job.state == "COMPLETING" and seen.cancelled:
        return "CANCELLED", ""  # its processes may take half a minute to end
    if job.state in AT_WORK:
        return "RUNNING", {"SUSPENDED": "suspended by Slurm", "STOPPED": "stopped by a signal"}.get(job.state, phase(seen))
    if job.state not in ENDED:
        return "UNKNOWN", f"Slurm reports job {job.id} as {job.state}"
    return _of_ended(job, has_successor, seen, sources)


def _of_ended(job: Job, has_successor: bool, seen: Seen, sources: Sources) -> tuple[str, str]:
    state = ENDED[job.state]
    if state == "SUCCEEDED":
        if seen.scores:
            return state, ""
        if seen.late and not seen.has_results:
            return "RUNNING", "the job has ended; its results are not on the login node's filesystem yet"
        return "FAILED", "results.yml holds no score" if seen.has_results else "the job ended without results.yml"
    if state == "FAILED" and job.ran_out_of_memory:
        return "OUT_OF_MEMORY", "a step of the job used more memory than it had"
    if job.state in RESUMED and has_successor and not sources.disabled:
        return "RESUMING", f"job {job.id} ended {job.state}; its successor resumes the task"
    if job.state in RESUMED and not seen.scores and not sources.accounting and not sources.disabled:
        return "UNKNOWN", f"job {job.id} ended {job.state}; accounting does not answer, so whether its successor resumed is unknown"
    return state, ""


def _unseen(seen: Seen, sources: Sources, waiting: bool) -> tuple[str, str]:
    """The state of a task of which Slurm shows no job any more."""
    number = max(seen.ids, default=seen.first)
    if seen.scores:
        return "SUCCEEDED", ""
    if not sources.queue:
        return "UNKNOWN", "squeue did not answer"
    if waiting:
        return "PENDING", REASONS[DEPENDENCY]
    if seen.cancelled:
        return "CANCELLED", ""
    if not sources.accounting and not sources.disabled:
        return "UNKNOWN", f"squeue no longer shows job {number}, and accounting did not answer"
    if seen.folder_missing:
        return "FAILED", f"Slurm no longer knows job {number}, and its folder on the cluster was removed"
    why = "accounting is disabled" if sources.disabled else "accounting does not have it"
    return "FAILED", f"Slurm no longer knows job {number} ({why}), and it left no results"


def phase(seen: Seen) -> str:
    """How far a running job has come, judged by the logs that it has."""
    if "client" in seen.logs:
        return ""
    return "waiting for the model server" if "server" in seen.logs else "starting"


def jobs_of(queue: str, account: str, controller: dict[int, str], wanted: set[str]) -> dict[str, dict[int, tuple[Job, str]]]:
    """The jobs that squeue, sacct and scontrol showed, by name and id, each with its working directory.

    If both know a job, squeue counts while the job is alive, and accounting once it has ended there, since it has the exit code.
    """
    found: dict[str, dict[int, tuple[Job, str]]] = {}
    for line in queue.splitlines():
        parts = line.split("|")
        if len(parts) < 8 or not parts[0].isdecimal() or parts[6] not in wanted:  # noqa: PLR2004  the fields that asking.sh asks for
            continue
        job = Job(int(parts[0]), parts[1], parts[7], _time(parts[2]), seconds_of(parts[3]))
        job.waits_for_another = parts[4] not in ("", "(null)", "None")
        if shown := controller.get(job.id):
            code = re.search(r"\bExitCode=(\d+:\d+)", shown)
            job.exit_code = exit_code_of(code[1]) if code else None
        found.setdefault(parts[6], {})[job.id] = (job, parts[5])
    steps: dict[int, bool] = {}
    for line in account.splitlines():
        parts = line.split("|")
        if len(parts) < 7:  # noqa: PLR2004
            continue
        number, dot, _ = parts[0].partition(".")
        if dot and number.isdecimal() and parts[1].startswith("OUT_OF_ME"):
            steps[int(number)] = True
        if not parts[0].isdecimal() or parts[6] not in wanted:
            continue
        elapsed = float(parts[3]) if parts[3].isdecimal() else None
        job = Job(int(parts[0]), parts[1].partition(" ")[0], "", _time(parts[4]), elapsed, exit_code_of(parts[2]))
        job.from_accounting = True
        known = found.setdefault(parts[6], {})
        if job.id not in known or (known[job.id][0].state in ENDED and job.state in ENDED):
            known[job.id] = (job, parts[5] or (known[job.id][1] if job.id in known else ""))
    for jobs in found.values():
        for killed in jobs.keys() & steps.keys():
            jobs[killed][0].ran_out_of_memory = True
    return found


def _time(text: str) -> str | None:
    return text if re.match(r"\d{4}-", text) else None


def document_fields(verdict: Verdict, seen: Seen) -> dict[str, Any]:
    """The fields of a row of status.json that describe the Slurm jobs."""
    job = verdict.job
    return {
        "slurm_job_id": str(job.id) if job else None,
        "chain": [str(number) for number in verdict.chain],
        "expected_start": job.start if job and job.state in WAITING else None,
        "waiting_successor": any(_is_waiting(one) for one in seen.jobs.values()),
    }
