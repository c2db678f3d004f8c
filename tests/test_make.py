"""The Makefile: what people type reaches the scripts unchanged, and the chain runs, goes on, and refuses as it should."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Make


def test_eval_prints_the_scores_of_a_real_model(make: Make, project: Path) -> None:
    done = make("eval", "QUICK=3", "TASKS=opposites")
    assert done.returncode == 0, done.stderr
    assert "opposites" in done.stdout
    assert "(3)" in done.stdout
    results = json.loads(next(project.glob("runs/*/results.json")).read_text())
    assert results["rows"][0]["n"] == 3
    for text in (
        "Compiled Configuration",
        "Starting evaluation...",
        "✓ Evaluation submitted: ",
        "Check status: nemo-evaluator-launcher status ",
    ):
        assert text in done.stderr
