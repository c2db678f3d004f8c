"""The scores of a toy task, out of the file that run.py wrote."""

import json
from pathlib import Path

from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult


def parse_output(output_dir: str) -> EvaluationResult:
    """What nemo-evaluator calls when the command has ended."""
    rows = [json.loads(line) for line in (Path(output_dir) / "answers.jsonl").read_text().splitlines()]
    mean = sum(row["right"] for row in rows) / len(rows)
    score = Score(value=mean, stats=ScoreStats(count=len(rows), mean=mean, stderr=(mean * (1 - mean) / len(rows)) ** 0.5))
    return EvaluationResult(tasks={rows[0]["task"]: TaskResult(metrics={"accuracy": MetricResult(scores={"accuracy": score})})})
