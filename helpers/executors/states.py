"""The states of a job, for every executor."""

from typing import Any

SUCCEEDED, FAILED, CANCELLED = "SUCCEEDED", "FAILED", "CANCELLED"
# A job in one of these states does not change any more.
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED, "TIMED_OUT", "OUT_OF_MEMORY", "NODE_FAILED", "PREEMPTED"})
# Stopped before its end by Ctrl-C or a kill; `make eval RUN=…` resumes it.
INTERRUPTED = "INTERRUPTED"
# Its cluster did not answer: this is neither an end nor a failure.
UNREACHABLE = "UNREACHABLE"


def is_over(rows: list[dict[str, Any]]) -> bool:
    """Whether every job of some rows of status.json has ended."""
    return all(row["state"] in ENDED for row in rows)


def is_lost(rows: list[dict[str, Any]]) -> bool:
    """Whether nothing runs any more though some job has not ended: it was killed or interrupted, and the same run resumes it."""
    return all(row["state"] in {*ENDED, INTERRUPTED} for row in rows) and not is_over(rows)


def has_failed(row: dict[str, Any]) -> bool:
    """Whether a job ended without success."""
    return row["state"] in ENDED and row["state"] != SUCCEEDED
