"""The score of an odd task: always one; or no results.yml, or half of one."""

import sys
from pathlib import Path

from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult


def parse_output(output_dir: str) -> EvaluationResult:
    """What nemo-evaluator calls when the command has ended."""
    out = Path(output_dir)
    task = (out / "task").read_text()
    if task == "torn":
        (out / "results.yml").write_text("results:\n  tasks:\n    torn:\n      metrics:\n        accuracy: {scores: {accu")
    if task in ("nothing", "torn"):
        sys.exit(0)
    score = Score(value=1.0, stats=ScoreStats(count=len((out / "lines").read_text()), mean=1.0, stderr=0.0))
    return EvaluationResult(tasks={task: TaskResult(metrics={"accuracy": MetricResult(scores={"accuracy": score})})})
