"""Why a task on Slurm failed: the log that shows it, its last error lines, and the fix if it is known."""

from dataclasses import dataclass

from helpers.common import causes
from helpers.executors import endpoint_failures, refusals
from helpers.executors.slurm.verdict import Seen, Verdict


@dataclass(frozen=True)
class Explained:
    """A failed task's state, its reason in one line, its last error lines, and which log they are from."""

    state: str
    reason: str
    errors: list[str]
    log: str


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
    state, reason, tails = verdict.state, verdict.reason, seen.tails
    # Of the logs of a task that was cancelled only those count that say that it was not.
    found = causes.find(tails, causes=[cause for cause in causes.CAUSES if state != "CANCELLED" or cause.state == "FAILED"])
    known = (found.what, found.fix) if found else None
    if state != "CANCELLED" and (not found or found.log == "client") and (own := _of_answers(seen, bool(found))):
        found, known = None, own
    if found and found.cause.state and (state == "FAILED" or found.cause.state in ("TIMED_OUT", "FAILED")):
        state = found.cause.state
    log = (found.cause.read or found.log) if found else next((kind for kind in ("client", "server") if tails.get(kind)), "slurm")
    errors = [] if state == "CANCELLED" else causes.telling(tails.get(log) or tails.get("slurm", []))
    said = errors[-1] if errors and not known else ""
    if found and found.cause.is_of_a_start:
        said = errors[-1] if errors and causes.SUMMARY.search(found.line) else found.line[: causes.MOST_CHARACTERS]
        errors = [said, *(error for error in errors if said not in error)][: causes.MOST_LINES]
    code = verdict.job.exit_code if verdict.job else None
    what, fix = known if known and state in ("FAILED", "OUT_OF_MEMORY", "TIMED_OUT") else BY_STATE.get(state, ("", ""))
    parts = [part for part in (what or reason, f"exit code {code}" if code else "", said[:200]) if part]
    if reason and what and not known:
        parts.insert(1, reason)
    if seen.scores and state != "SUCCEEDED":
        parts.append("results.yml has scores nevertheless")
    return Explained(state, "; ".join([*dict.fromkeys(parts), *([fix] if fix else [])])[:600], errors, log)


def _of_answers(seen: Seen, has_cause: bool) -> tuple[str, str] | None:
    """What happened and the fix, if the endpoint refused the last request of the client, or no answer carried anything to score."""
    lines = seen.tails.get("client", [])
    if refusal := refusals.in_lines(lines) if any(map(endpoint_failures.STATUS.search, causes.telling(lines)[-1:])) else None:
        fix = "check env_vars" if refusal.kind == "key" else refusal.fix() or "read the server's log (`make logs WHICH=server`)"
        return f"the endpoint answers {refusal}", fix
    nothing = None if has_cause else endpoint_failures.none_scorable(seen.answers)
    return (nothing, "") if nothing else None
