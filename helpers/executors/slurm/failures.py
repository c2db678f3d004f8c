"""Why a task on Slurm failed: the log that shows it, its last error lines, and the fix if it is known."""

import re
from dataclasses import dataclass

from helpers.executors import endpoint_failures, job_folder, refusals
from helpers.executors.slurm.verdict import Seen, Verdict

REQUEST_TIMEOUT = 'SET="evaluation.nemo_evaluator_config.config.params.request_timeout=7200"'
MOST_LINES = 3
# Lines that look like errors and are none: our own progress URL refuses each count, a setting's name contains "failed", and the server is
# stopped when the evaluation ends.
HARMLESS = re.compile(
    r"progress tracking server|127\.0\.0\.1:9\b|log_failed_requests|forcing job termination|Job step aborted"
    r"|srun: error: .*: (Killed|Terminated)|^\+"
)


@dataclass(frozen=True)
class Cause:
    """A known way to fail: which log shows it by which words, the log worth reading, what happened, the fix, and the state it means.

    `quoted`: the line that shows it is part of the reason.
    """

    where: str
    words: str  # a regular expression
    log: str
    what: str
    fix: str
    state: str | None = None  # instead of the job's
    quoted: bool = False


@dataclass(frozen=True)
class Explained:
    """A failed task's state, its reason in one line, its last error lines, and which log they are from."""

    state: str
    reason: str
    errors: list[str]
    log: str


# Words that several causes share.
NO_IMAGE = r"pyxis: .*(failed to import|couldn't|failed to create container|[Nn]o such file)|Invalid image format|enroot.*No such file"
DISK_FULL = r"No space left on device|Disk quota exceeded"
READ_SERVER = "read its log: `make logs WHICH=server`"


def _node_causes(words: str, what: str, fix: str, state: str | None = None) -> list[Cause]:
    """A step that its node cannot start: Slurm writes why to the job's log, or to that of the step."""
    return [Cause(where, words, where, what, fix, state, quoted=True) for where in ("slurm", "server", "client")]


# The first match counts, so what happens first in a job comes first.
CAUSES = [
    *_node_causes(
        r"Error running slurm prolog|(srun|slurmstepd|slurmd): .*[Pp]rolog.* failed",
        "a script that the cluster runs before each job (its prolog) failed on the node",
        "`make resume` takes another node; tell the cluster's administrators, or name the node in exclude in env.toml",
        "FAILED",  # Slurm calls such a job cancelled
    ),
    *_node_causes(
        r"unrecognized option .--(no-)?container-|SPANK plugin .pyxis. option .* not found",
        "the node has no Pyxis, which runs containers",
        "choose a partition whose nodes have it, or ask the cluster's administrators",
    ),
    *_node_causes(NO_IMAGE, "the container image was not found or cannot be read", "check deployment.image and the task's container"),
    Cause(
        "server", r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory", "server",
        "the model server ran out of GPU memory",
        "raise deployment.tensor_parallel_size, or lower its context length (--max-model-len) or its batch",
    ),
    Cause(
        "slurm", r"Health check timeout after \d+s", "server",
        "health check timed out: the model server did not answer in time",
        "raise execution.endpoint_readiness_timeout, and read the server's log (`make logs WHICH=server`)",
    ),
    *_node_causes(
        r"[Ii]nvalid MPI type|plugin (name )?for mpi/pmix|can ?not load PMIx library",
        "Slurm cannot use PMIx on the node, with which the launcher starts each step (srun --mpi pmix)",
        "choose a partition whose nodes have it, or ask the cluster's administrators for Slurm's PMIx plugin and libpmix",
    ),
    Cause("slurm", r"(server|[\w-]+ server) process \d+ died", "server", "the model server died before it was ready", READ_SERVER),
    Cause(
        "slurm", r"Maximum total walltime .* exceeded", "client",
        "max_walltime was reached by the job and its successors",
        "raise execution.max_walltime, or evaluate fewer samples",
        "TIMED_OUT",
    ),
    Cause(
        "slurm", r"oom-kill|Out Of Memory|oom_kill", "client",
        "a step used more memory than the job had",
        "raise mem in env.toml",
        "OUT_OF_MEMORY",
    ),
    *(Cause(log, DISK_FULL, log, "the cluster's disk is full", "free space there") for log in ("client", "slurm")),
    Cause(
        "client",
        r"[Rr]ead timed out|ReadTimeout|APITimeoutError|Request timed out|TimeoutError|asyncio\.exceptions\.TimeoutError",
        "client",
        "the evaluation's requests timed out",
        f"give the model more time to answer: {REQUEST_TIMEOUT}",
    ),
    Cause(
        "client", r"Connection refused|Connection aborted|RemoteDisconnected|ConnectionResetError|Max retries exceeded", "server",
        "the model server stopped answering",
        READ_SERVER,
    ),
    Cause("client", r"\b401 (Client Error|Unauthorized)|GatedRepoError", "client", "a key or a token was refused", "check env_vars"),
]  # fmt: skip
# What a state alone says if no log says more.
BY_STATE = {
    "TIMED_OUT": ("the job reached its walltime", "raise time in env.toml (or execution.walltime), then `make resume`"),
    "OUT_OF_MEMORY": ("the job used more memory than it had", "raise mem in env.toml"),
    "NODE_FAILED": ("its node failed", "`make resume` runs it again"),
    "PREEMPTED": ("a job of higher priority took its node", "`make resume` runs it again"),
    "CANCELLED": ("it was cancelled", "`make resume` runs it again"),
}


def explain(verdict: Verdict, seen: Seen) -> Explained:
    """What to report about a task that ended without success."""
    state, reason, cause, line = verdict.state, verdict.reason, None, ""
    for one in CAUSES:
        # Of the logs of a task that was cancelled only those count that say that it was not.
        if (state != "CANCELLED" or one.state == "FAILED") and (line := _shown(seen.tails.get(one.where, []), one.words)):
            cause = one
            break
    if state != "CANCELLED":
        if not cause or cause.where == "client":
            cause = _refusal(seen.tails.get("client", [])) or cause
        if not cause and (nothing := endpoint_failures.none_scorable(seen.answers)):
            cause = Cause("client", "", "client", nothing, "")
    if cause and cause.state and (state == "FAILED" or cause.state in ("TIMED_OUT", "FAILED")):
        state = cause.state
    log = cause.log if cause else "client" if seen.tails.get("client") else "server" if seen.tails.get("server") else "slurm"
    errors = [] if state == "CANCELLED" else telling_lines(seen.tails.get(log, []) or seen.tails.get("slurm", []))
    if cause and cause.quoted and line not in errors:
        errors = [line[:300], *errors][:MOST_LINES]
    said = line[:300] if cause and cause.quoted else errors[-1] if errors and not cause else ""
    code = verdict.job.exit_code if verdict.job else None
    what, fix = (cause.what, cause.fix) if cause and state in ("FAILED", "OUT_OF_MEMORY", "TIMED_OUT") else BY_STATE.get(state, ("", ""))
    parts = [part for part in (what or reason, f"exit code {code}" if code else "", said) if part]
    if reason and what and not cause:
        parts.insert(1, reason)
    if seen.scores and state != "SUCCEEDED":
        parts.append("results.yml has scores nevertheless")
    return Explained(state, "; ".join([*dict.fromkeys(parts), *([fix] if fix else [])])[:600], errors, log)


def _refusal(lines: list[str]) -> Cause | None:
    """The refusal of the endpoint that ended the client, according to its log."""
    refusal = refusals.in_lines(lines) if any(map(endpoint_failures.STATUS.search, telling_lines(lines)[-1:])) else None
    if not refusal:
        return None
    fix = "check env_vars" if refusal.kind == "key" else refusal.fix() or "read the server's log (`make logs WHICH=server`)"
    return Cause("client", "", "client", f"the endpoint answers {refusal}", fix)


def telling_lines(lines: list[str]) -> list[str]:
    """The last error lines, at most MOST_LINES; if there are none, the last line."""
    serious = [line for line in lines if not HARMLESS.search(line)]
    for telling in job_folder.TELLING:
        if found := [line[:300] for line in serious if telling.search(line)]:
            return found[-MOST_LINES:]
    return [line[:300] for line in serious[-1:]]


def _shown(lines: list[str], words: str) -> str:
    """The first line with these words; empty if there is none."""
    return next((line for line in lines if re.search(words, line) and not HARMLESS.search(line)), "")
