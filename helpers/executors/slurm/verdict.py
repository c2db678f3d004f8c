"""What the jobs of a task on Slurm amount to: one state, with the reason in a sentence. Pure: nothing is asked here.

A task on Slurm is a chain of jobs of one name. Each, as soon as it starts, queues its successor with `afternotok` (the launcher's
executors/slurm/executor.py, _generate_autoresume_handler). The successor of a job that ended TIMEOUT, PREEMPTED or NODE_FAIL goes on with
the task; that of any other starts, sees that, and exits. It sees it in accounting: without accounting no job is ever resumed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

# Slurm's words (squeue's man page, JOB STATE CODES) for jobs that will not change any more, in ours.
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
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
AT_WORK = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
# A successor goes on after these alone.
RESUMED = {"TIMEOUT", "PREEMPTED", "NODE_FAIL"}
# Accounting is switched off, which is an answer and no failure to answer.
DISABLED = re.compile(r"accounting storage is disabled", re.IGNORECASE)

# Why a job waits: Slurm's word (squeue's man page, JOB REASON CODES), and a sentence for people.
REASONS = {
    "Priority": "waiting for resources: other jobs come first",
    "Resources": "insufficient available nodes: waiting until enough are free",
    "QOSMaxJobsPerUserLimit": "user job limit reached: it starts when another job of yours ends",
    "QOSMaxSubmitJobPerUserLimit": "the QOS lets a user submit no more jobs",
    "QOSMaxCpuPerUserLimit": "the QOS lets a user hold no more CPUs at once",
    "QOSMaxGRESPerUser": "the QOS lets a user hold no more GPUs at once: it starts when a job of yours ends",
    "QOSGrpGRES": "the QOS has no more GPUs to give: it starts when jobs in it end",
    "QOSGrpNodeLimit": "the QOS has no more nodes to give: it starts when jobs in it end",
    "QOSMaxWallDurationPerJobLimit": "its walltime is over the QOS's limit: it will not start; lower time",
    "AssocGrpGRES": "your account holds as many GPUs as it may: it starts when jobs of the account end",
    "AssocGrpGRESMinutes": "your account has used up its GPU hours: ask who manages it",
    "AssocGrpCPUMinutesLimit": "your account has used up its CPU hours: ask who manages it",
    "AssocGrpCpuLimit": "your account holds as many CPUs as it may: it starts when jobs of the account end",
    "AssocGrpNodeLimit": "your account holds as many nodes as it may: it starts when jobs of the account end",
    "AssocMaxJobsLimit": "your account lets you run no more jobs at once: it starts when another one ends",
    "AssocGrpBillingMinutes": "your account has used up its budget: ask who manages it",
    "MaxJobsPerAccount": "the account runs as many jobs as it may: it starts when another one ends",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or reserved",
    "Reservation": "waiting for its reservation to begin",
    "PartitionDown": "the partition is down: choose another, or wait",
    "PartitionInactive": "the partition takes no jobs now: choose another, or wait",
    "PartitionTimeLimit": "its walltime is over the partition's limit: it will not start; `make cancel` it and lower time",
    "PartitionNodeLimit": "it asks for more nodes than the partition has: it will not start; `make cancel` it and lower nodes",
    "PartitionConfig": "it asks for what the partition does not give: it will not start; `make cancel` it and choose another",
    "AccountNotAllowed": "the partition is not open to the account: it will not start; `make cancel` it and choose another",
    "BadConstraints": "no node has what it asks for: it will not start; `make cancel` it",
    "BeginTime": "its earliest start has not come yet: Slurm holds a requeued job back for some minutes",
    "Dependency": "waiting for the job before it to end",
    "DependencyNeverSatisfied": "the job that it waits for ended otherwise: it will never start",
    "JobHeldUser": "held by a user: `scontrol release` it",
    "JobHeldAdmin": "held by an administrator: ask them",
    "Licenses": "waiting for a licence",
    "NodeDown": "a node that it needs is down",
    "Cleaning": "an earlier attempt at it is being cleaned up",
    "Prolog": "its nodes are being prepared",
    "InvalidAccount": "the account is not valid any more: it will not start",
    "InvalidQOS": "the QOS is not valid any more: it will not start",
    "launch failed requeued held": "its node could not start it, and Slurm holds it: `scontrol release` it, or ask the administrators",
    "None": "just queued: Slurm has not looked at it yet",
}


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
    """All that was seen of one task: its jobs, and what its folder held. `tails`: the last lines of the newest log of each kind."""

    first: int | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    has_results: bool = False
    scores: int | None = None  # how many scores results.yml has; None: it was not read
    progress: int | None = None
    logs: dict[str, str] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    late: bool = False  # the job may have ended so lately that its last files do not show yet
    folder_gone: bool = False
    cancelled: bool = False  # by us, as the task's folder has it
    folder: str | None = None


@dataclass(frozen=True)
class Asked:
    """What Slurm said when it was asked: squeue answered; accounting answered, is disabled, or neither; the problems, a sentence each."""

    queue: bool
    accounting: bool
    disabled: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Where a task stands."""

    state: str
    reason: str
    job: Job | None
    attempt: int
    chain: tuple[int, ...]


def judge(seen: Seen, asked: Asked) -> Verdict:
    """The verdict over one task."""
    jobs = [job for number, job in sorted(seen.jobs.items()) if seen.first is None or number >= seen.first]
    walk = [job for job in jobs if not _is_waiting(job) and not _never_began(job, seen)]
    if not walk:
        waiting = [job for job in jobs if _is_waiting(job)]
        state, reason = _unseen(seen, asked, waiting=any(job.reason != "DependencyNeverSatisfied" for job in waiting))
        return Verdict(state, reason, waiting[-1] if waiting else None, 1, tuple(seen.ids))
    active, attempt = walk[0], 1
    for job in walk[1:]:
        if active.state not in RESUMED or asked.disabled:
            break
        active, attempt = job, attempt + 1
    later = [job for job in jobs if job.id > active.id and job.state not in ENDED]
    state, reason = _of(active, attempt, bool(later), seen, asked)
    return Verdict(state, reason, active, attempt, tuple(job.id for job in walk[:attempt]))


def _is_waiting(job: Job) -> bool:
    """Whether a job is a successor that waits for the one before it."""
    return job.state == "PENDING" and (job.waits_for_another or job.reason.startswith("Dependency"))


def _never_began(job: Job, seen: Seen) -> bool:
    """Whether a job is a successor that left the queue unused, and is shown longer than the job that it waited for."""
    return job.state == "CANCELLED" and not job.seconds and seen.first not in {None, job.id, *seen.jobs} and job.id not in seen.ids


def _of(job: Job, attempt: int, has_successor: bool, seen: Seen, asked: Asked) -> tuple[str, str]:
    if job.state in WAITING:
        return ("RESUMING" if attempt > 1 else "PENDING"), reason_of(job)
    if job.state == "COMPLETING" and seen.cancelled:
        return "CANCELLED", ""  # its processes may take half a minute to end
    if job.state in AT_WORK:
        return "RUNNING", {"SUSPENDED": "suspended by Slurm", "STOPPED": "stopped by a signal"}.get(job.state, phase(seen))
    if job.state not in ENDED:
        return "UNKNOWN", f"Slurm says {job.state} of job {job.id}"
    return _of_ended(job, has_successor, seen, asked)


def _of_ended(job: Job, has_successor: bool, seen: Seen, asked: Asked) -> tuple[str, str]:
    state = ENDED[job.state]
    if state == "SUCCEEDED":
        if seen.scores:
            return state, ""
        if seen.late and not seen.has_results:
            return "RUNNING", "the job has ended; its results are not on the login node's filesystem yet"
        return "FAILED", "results.yml holds no score" if seen.has_results else "the job ended without results.yml"
    if state == "FAILED" and job.ran_out_of_memory:
        return "OUT_OF_MEMORY", "a step of the job used more memory than it had"
    if job.state in RESUMED and has_successor and not asked.disabled:
        return "RESUMING", f"job {job.id} ended {job.state}; its successor goes on"
    if job.state in RESUMED and not seen.scores and not asked.accounting and not asked.disabled:
        return "UNKNOWN", f"job {job.id} ended {job.state}; whether its successor went on, only accounting knows"
    return state, ""


def _unseen(seen: Seen, asked: Asked, waiting: bool) -> tuple[str, str]:
    """The verdict over a task of which Slurm shows no job any more."""
    number = max(seen.ids, default=seen.first)
    if seen.scores:
        return "SUCCEEDED", ""
    if not asked.queue:
        return "UNKNOWN", "squeue could not be asked"
    if waiting:
        return "PENDING", REASONS["Dependency"]
    if seen.cancelled:
        return "CANCELLED", ""
    if not asked.accounting and not asked.disabled:
        return "UNKNOWN", f"squeue has no job {number} any more, and accounting could not be asked"
    if seen.folder_gone:
        return "FAILED", f"Slurm knows no job {number} any more, and its folder on the cluster is gone"
    why = "accounting is disabled" if asked.disabled else "accounting does not have it"
    return "FAILED", f"Slurm knows no job {number} any more ({why}), and it left no results"


def reason_of(job: Job) -> str:
    """`Priority: waiting for resources: …`: Slurm's word for why a job waits, and a sentence."""
    word = job.reason.strip("()").replace("_", " ") or "None"  # newer Slurms write a reason of several words with underscores
    known = REASONS.get(word) or REASONS.get(word.partition(",")[0])
    return f"{word}: {known}" if known else word


def phase(seen: Seen) -> str:
    """How far a running job is, by which logs it has."""
    if "client" in seen.logs:
        return ""
    return "waiting for the model server" if "server" in seen.logs else "starting"


def seconds_of(text: str) -> float | None:
    """Slurm's elapsed time, `1-02:03:04`, `02:03:04` or `03:04`, in seconds; None for anything else."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def exit_code_of(text: str) -> int | None:
    """Slurm's `CODE:SIGNAL` as a shell would say it: the code, or 128 and the signal."""
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if not found:
        return None
    code, signal = int(found[1]), int(found[2])
    return code or (128 + signal if signal else 0)


def jobs_of(queue: str, account: str, controller: dict[int, str], wanted: set[str]) -> dict[str, dict[int, tuple[Job, str]]]:
    """The jobs that squeue, sacct and scontrol showed, by name and id, each with its working directory.

    For a job in both, squeue's word counts while it is alive, and accounting's when it has ended there: it has the exit code.
    """
    found: dict[str, dict[int, tuple[Job, str]]] = {}
    for line in queue.splitlines():
        parts = line.split("|")
        if len(parts) < 8 or not parts[0].isdecimal() or parts[6] not in wanted:  # noqa: PLR2004  the fields that asking.sh asks for
            continue
        job = Job(int(parts[0]), parts[1], parts[7], _time(parts[2]), seconds_of(parts[3]))
        job.waits_for_another = parts[4] not in ("", "(null)", "None")
        if told := controller.get(job.id):
            code = re.search(r"\bExitCode=(\d+:\d+)", told)
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
        job = Job(int(parts[0]), parts[1].partition(" ")[0], "", _time(parts[4]), _number(parts[3]), exit_code_of(parts[2]))
        job.from_accounting = True
        held = found.setdefault(parts[6], {})
        if job.id not in held or (held[job.id][0].state in ENDED and job.state in ENDED):
            held[job.id] = (job, parts[5] or (held[job.id][1] if job.id in held else ""))
    for jobs in found.values():
        for known in jobs.keys() & steps.keys():
            jobs[known][0].ran_out_of_memory = True
    return found


def _time(text: str) -> str | None:
    return text if re.match(r"\d{4}-", text) else None


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def document_fields(verdict: Verdict, seen: Seen) -> dict[str, Any]:
    """What a row of status.json says of the jobs themselves."""
    job = verdict.job
    return {
        "slurm_job_id": str(job.id) if job else None,
        "chain": [str(number) for number in verdict.chain],
        "expected_start": job.start if job and job.state in WAITING else None,
        "waiting_successor": any(_is_waiting(one) for one in seen.jobs.values()),
    }
