"""helpers/executors/states.py: what is over, and what is lost."""

from __future__ import annotations

import pytest

from helpers.executors import states as job_states


@pytest.mark.parametrize(
    ("states", "over", "lost"),
    [
        (["SUCCEEDED", "FAILED", "CANCELLED"], True, False),
        (["SUCCEEDED", "INTERRUPTED"], False, True),
        (["INTERRUPTED", "RUNNING"], False, False),
        (["PENDING"], False, False),
        (["SUCCEEDED", "UNKNOWN"], False, False),
    ],
)
def test_what_is_over_and_what_is_lost(states: list[str], over: bool, lost: bool) -> None:
    rows = [{"state": state} for state in states]
    assert job_states.is_over(rows) == over
    assert job_states.is_lost(rows) == lost
