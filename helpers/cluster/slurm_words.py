"""Slurm's words and what they mean to a person: states of jobs, reasons for waiting, refusals, and forms of times and exit codes."""

import re

# Job states (squeue's man page, JOB STATE CODES). A job in ENDED will not change any more.
WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
AT_WORK = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"})
ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "REVOKED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED"}
)
# How `timeout` reports a command that it stopped.
STOPPED_BY_TIMEOUT = ("124", "137")
# Slurm's controller or database does not answer; queueing.sh has its own list of answers that are worth a second try.
SILENT = re.compile(r"Unable to contact slurm controller|Socket timed out|Connection refused|timed out|Zero Bytes|Unable to establish")
# Accounting is switched off, which is an answer and not a failure to answer.
DISABLED = re.compile(r"accounting storage is disabled", re.IGNORECASE)

# The reasons of a job that waits for another one, and of one that waits for ever, since the other ended in another way.
DEPENDENCY, NEVER = "Dependency", "DependencyNeverSatisfied"
# Why a job waits: Slurm's word (squeue's man page, JOB REASON CODES), and a sentence for people.
REASONS = {
    "Priority": "waiting for resources: other jobs come first",
    "Resources": "insufficient available nodes: waiting until enough are free",
    "QOSMaxJobsPerUserLimit": "user job limit reached: it starts when another job of yours ends",
    "QOSMaxSubmitJobPerUserLimit": "the QOS lets a user submit no more jobs",
    "QOSMaxCpuPerUserLimit": "the QOS lets a user hold no more CPUs at once",
    "QOSMaxGRESPerUser": "the QOS lets a user hold no more GPUs at once: it starts when a job of yours ends",
    "QOSGrpGRES": "all GPUs of the QOS are in use: it starts when other jobs of the QOS end",
    "QOSGrpNodeLimit": "all nodes of the QOS are in use: it starts when other jobs of the QOS end",
    "QOSMaxWallDurationPerJobLimit": "its walltime is over the QOS's limit: it will not start; lower time",
    "AssocGrpGRES": "your account holds as many GPUs as it may: it starts when other jobs of the account end",
    "AssocGrpGRESMinutes": "your account has used up its GPU hours: ask the person who manages it",
    "AssocGrpCPUMinutesLimit": "your account has used up its CPU hours: ask the person who manages it",
    "AssocGrpCpuLimit": "your account holds as many CPUs as it may: it starts when other jobs of the account end",
    "AssocGrpNodeLimit": "your account holds as many nodes as it may: it starts when other jobs of the account end",
    "AssocMaxJobsLimit": "your account lets you run no more jobs at once: it starts when another one ends",
    "AssocGrpBillingMinutes": "your account has used up its budget: ask the person who manages it",
    "MaxJobsPerAccount": "the account runs as many jobs as it may: it starts when another one ends",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or reserved",
    "Reservation": "waiting for its reservation to begin",
    "PartitionDown": "the partition is down: choose another, or wait",
    "PartitionInactive": "the partition accepts no jobs at the moment: choose another, or wait",
    "PartitionTimeLimit": "its walltime is over the partition's limit: it will not start; `make cancel` it and lower time",
    "PartitionNodeLimit": "it asks for more nodes than the partition has: it will not start; `make cancel` it and lower nodes",
    "PartitionConfig": "it asks for something that the partition does not offer: it will not start; `make cancel` it and choose another",
    "AccountNotAllowed": "the partition is not open to the account: it will not start; `make cancel` it and choose another",
    "BadConstraints": "no node has what it asks for: it will not start; `make cancel` it",
    "BeginTime": "its earliest start is still to come: Slurm holds a requeued job back for some minutes",
    "Dependency": "waiting for the job before it to end",
    "DependencyNeverSatisfied": "the job that it waits for ended in another way: it will never start",
    "JobHeldUser": "held by a user: `scontrol release` it",
    "JobHeldAdmin": "held by an administrator: ask them",
    "Licenses": "waiting for a licence",
    "NodeDown": "a node that it needs is down",
    "Cleaning": "Slurm is cleaning up after an earlier attempt",
    "Prolog": "its nodes are being prepared",
    "InvalidAccount": "the account is no longer valid: it will not start",
    "InvalidQOS": "the QOS is no longer valid: it will not start",
    "launch failed requeued held": "its node could not start it, and Slurm holds it: `scontrol release` it, or ask the administrators",
    "None": "just queued: Slurm has not looked at it yet",
}
# What sbatch says when it refuses a job, and the fix. The first match counts.
REFUSALS = {
    r"[Ii]nvalid account": "check account (and partition) in env.toml: `sacctmgr show associations user=$USER` there lists yours",
    r"[Ii]nvalid partition": "check partition in env.toml: `sinfo -s` there lists them",
    r"time limit is invalid|PartitionTimeLimit|MaxWallDuration":
        "the walltime is over the limit of the partition or QOS: lower time, or choose another",
    r"QOSMax|policy|limit": "a limit of your account or QOS is reached: wait until jobs of yours have ended, or ask for less",
    r"[Rr]equested node configuration is not available|gres|GRES":
        "no node of the partition has what the job asks for: check nodes, gpus_per_node and mem",
    r"not permitted|not accessible|access": "the partition is not open to this account or user: choose another",
    r"State|down|drain|not available": "the partition accepts no jobs at the moment: choose another, or wait",
}  # fmt: skip


def pending_reason(word: str) -> str:
    """`Priority: waiting for resources: …`: Slurm's word for why a job waits, and a sentence."""
    word = word.strip("()").replace("_", " ") or "None"  # newer Slurms write a reason of several words with underscores
    known = REASONS.get(word) or REASONS.get(word.partition(",")[0])
    return f"{word}: {known}" if known else word


def plain(said: str) -> str:
    """What sbatch printed, in one line and without `sbatch: error: `."""
    return " ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines())


def refusal(said: str) -> str:
    """What sbatch printed when it refused a job, and after it `; ` and the fix, if it is known."""
    words = plain(said)
    return words + next((f"; {fix}" for pattern, fix in REFUSALS.items() if re.search(pattern, words)), "")


def seconds_of(text: str) -> float | None:
    """Slurm's elapsed time, `1-02:03:04`, `02:03:04` or `03:04`, in seconds; None for anything else."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def exit_code_of(text: str) -> int | None:
    """Slurm's `CODE:SIGNAL` as a shell would report it: the code, or 128 plus the signal; None for anything else."""
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if not found:
        return None
    code, signal = int(found[1]), int(found[2])
    return code or (128 + signal if signal else 0)
