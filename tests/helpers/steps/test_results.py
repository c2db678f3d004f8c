"""helpers/steps/results.py: the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.common import files
from helpers.common.errors import TaskFailed
from helpers.steps import results

RUN = "20261122T013512Z-mine-7f3a"
INVOCATION = "0" * 16


def test_the_verdict_names_each_task_without_results_and_how_to_continue(tmp_path: Path) -> None:
    entries = [
        {
            "task": "a", "index": index, "harness": "h", "state": state, "reason": "it failed", "seconds": None, "samples_asked": None,
            "samples_failed": None, "chance": None, "results_file": None,
        }
        for index, state in enumerate(("SUCCEEDED", "TIMED_OUT"))
    ]  # fmt: skip
    run = tmp_path / RUN
    run.mkdir()
    head = {"made_by": "t", "made_from": {}, "invocation_id": INVOCATION, "model": None, "rows": []}
    files.write_json(run / "results.json", {**head, "tasks": entries}, "results")
    said = rf"1 of 2 tasks failed: a\.1; `make logs RUN={RUN}` shows why, `make resume RUN={RUN}` runs them again"
    with pytest.raises(TaskFailed, match=said):
        results.verdict(str(run / "results.json"))
