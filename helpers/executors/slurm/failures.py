"""Why a task on Slurm failed: the log that tells, its last lines of trouble, and the mend where it is known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from helpers.executors import job_folder
from helpers.executors.slurm.verdict import Seen, Verdict

REQUEST_TIMEOUT = 'SET="evaluation.nemo_evaluator_config.config.params.request_timeout=7200"'
MOST_LINES = 3
# Lines that speak of trouble and are none: our own progress URL refuses each count, a setting's name, and the evaluation's end stops the
# server.
HARMLESS = re.compile(
    r"progress tracking server|127\.0\.0\.1:9\b|log_failed_requests|forcing job termination|Job step aborted"
    r"|srun: error: .*: (Killed|Terminated)|^\+"
)


@dataclass(frozen=True)
class Cause:
    """A known way to fail: which log shows it by which words, what happened, the mend, and the log whose end is worth reading then."""

    where: str
    words: re.Pattern[str]
    what: str
    mend: str
    log: str


@dataclass(frozen=True)
class Explained:
    """A failed task's state, its reason in one line, its last lines of trouble, and which log they are of."""

    state: str
    reason: str
    errors: list[str]
    log: str


def _cause(where: str, words: str, what: str, mend: str, log: str) -> Cause:
    return Cause(where, re.compile(words), what, mend, log)


# In the order in which they are tried: what happened first in a job comes first.
CAUSES = [
    # pyxis says so in the log of the step whose container it is.
    *(
        _cause(
            where,
            r"pyxis: .*(failed to import|couldn't|failed to create container|[Nn]o such file)|Invalid image format|enroot.*No such file",
            "the container image was not found or cannot be read",
            "check deployment.image and the task's container",
            where,
        )
        for where in ("slurm", "server", "client")
    ),
    _cause(
        "server",
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory",
        "the model server ran out of GPU memory",
        "raise deployment.tensor_parallel_size, or lower its context length (--max-model-len) or its batch",
        "server",
    ),
    _cause(
        "slurm",
        r"Health check timeout after \d+s",
        "health check timed out: the model server did not answer in time",
        "raise execution.endpoint_readiness_timeout, and see the server's log (`make logs WHICH=server`)",
        "server",
    ),
    _cause(
        "slurm",
        r"(server|[\w-]+ server) process \d+ died",
        "the model server died before it was ready",
        "see its log: `make logs WHICH=server`",
        "server",
    ),
    _cause(
        "slurm",
        r"Maximum total walltime .* exceeded",
        "max_walltime was used up over all resumed jobs",
        "raise execution.max_walltime, or ask fewer samples",
        "client",
    ),
    _cause("slurm", r"oom-kill|Out Of Memory|oom_kill", "a step used more memory than the job had", "raise mem in env.toml", "client"),
    _cause("client", r"No space left on device|Disk quota exceeded", "the cluster's disk is full", "free space there", "client"),
    _cause("slurm", r"No space left on device|Disk quota exceeded", "the cluster's disk is full", "free space there", "slurm"),
    _cause(
        "client",
        r"[Rr]ead timed out|ReadTimeout|APITimeoutError|Request timed out|TimeoutError|asyncio\.exceptions\.TimeoutError",
        "the evaluation's requests timed out",
        f"give the model more time for an answer: {REQUEST_TIMEOUT}",
        "client",
    ),
    _cause(
        "client",
        r"Connection refused|Connection aborted|RemoteDisconnected|ConnectionResetError|Max retries exceeded",
        "the model server stopped answering",
        "see its log: `make logs WHICH=server`",
        "server",
    ),
    _cause("client", r"\b401 (Client Error|Unauthorized)|GatedRepoError", "a key or a token was refused", "check env_vars", "client"),
]
# What a state alone says, where no log says more.
BY_STATE = {
    "TIMED_OUT": ("the job reached its walltime", "raise time in env.toml (or execution.walltime), then `make resume`"),
    "OUT_OF_MEMORY": ("the job used more memory than it had", "raise mem in env.toml"),
    "NODE_FAILED": ("its node failed", "`make resume` runs it again"),
    "PREEMPTED": ("a job of higher priority took its node", "`make resume` runs it again"),
    "CANCELLED": ("it was cancelled", "`make resume` runs it again"),
}


def explain(verdict: Verdict, seen: Seen) -> Explained:
    """What is to be said of a task that ended without success."""
    state, reason = verdict.state, verdict.reason
    cause = None if state == "CANCELLED" else next((one for one in CAUSES if _shows(seen.tails.get(one.where, []), one.words)), None)
    if cause and "max_walltime" in cause.what:
        state = "TIMED_OUT"
    elif cause and cause.words.pattern.startswith("oom") and state == "FAILED":
        state = "OUT_OF_MEMORY"
    log = cause.log if cause else "client" if seen.tails.get("client") else "server" if seen.tails.get("server") else "slurm"
    errors = [] if state == "CANCELLED" else telling_lines(seen.tails.get(log, []) or seen.tails.get("slurm", []))
    code = verdict.job.exit_code if verdict.job else None
    what, mend = (cause.what, cause.mend) if cause and state in ("FAILED", "OUT_OF_MEMORY", "TIMED_OUT") else BY_STATE.get(state, ("", ""))
    told = [part for part in (what or reason, f"exit code {code}" if code else "", errors[-1] if errors and not cause else "") if part]
    if reason and what and not cause:
        told.insert(1, reason)
    if seen.scores and state != "SUCCEEDED":
        told.append("results.yml has scores all the same")
    return Explained(state, "; ".join([*dict.fromkeys(told), *([mend] if mend else [])])[:600], errors, log)


def telling_lines(lines: list[str]) -> list[str]:
    """The last lines that speak of trouble, at most MOST_LINES; else the very last line."""
    serious = [line for line in lines if not HARMLESS.search(line)]
    for telling in job_folder.TELLING:
        if found := [line[:300] for line in serious if telling.search(line)]:
            return found[-MOST_LINES:]
    return [line[:300] for line in serious[-1:]]


def _shows(lines: list[str], words: re.Pattern[str]) -> bool:
    return any(words.search(line) and not HARMLESS.search(line) for line in lines)
