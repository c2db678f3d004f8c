"""helpers/executors/submissions.py: which jobs a person means."""

from __future__ import annotations

import pytest

from helpers.common.errors import BadInput
from helpers.executors import submissions

JOBS = {"jobs": [{"task": "a", "index": 0}, {"task": "b", "index": 1}, {"task": "a", "index": 2}]}


@pytest.mark.parametrize(
    ("wanted", "indices"), [([], [0, 1, 2]), (["b"], [1]), (["a"], [0, 2]), (["a.2"], [2]), (["a.0", "b"], [0, 1]), (["a", "a.2"], [0, 2])]
)
def test_a_task_that_a_run_has_twice_is_named_with_its_number_or_both_are_meant(wanted: list[str], indices: list[int]) -> None:
    assert [job["index"] for job in submissions.chosen(JOBS, wanted)] == indices


def test_a_task_that_the_run_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(BadInput, match=r"TASKS: this run has no task a\.1 \(did you mean a\.2\?\); it has a\.0, b, a\.2, a"):
        submissions.chosen(JOBS, ["b", "a.1"])
