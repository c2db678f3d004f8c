"""Turn the files of a finished starter task into nemo-evaluator's result. nemo-evaluator calls parse_output itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult


def accuracy_of(correct: list[bool]) -> Score:
    """Return the share of right answers with n, and the standard error of the mean (population standard deviation over root n)."""
    count = len(correct)
    mean = sum(correct) / count
    stddev = math.sqrt(mean * (1 - mean))
    stats = ScoreStats(count=count, mean=mean, stddev=stddev, stderr=stddev / math.sqrt(count))
    return Score(value=mean, stats=stats)


def parse_output(output_dir: str) -> EvaluationResult:
    """Return the accuracy of the task in `output_dir` over the samples that were answered.

    Raises RuntimeError when the task did not finish, or when no sample was answered: no answer is not a score of 0.
    """
    folder = Path(output_dir)
    try:
        samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"the task did not finish: {folder / 'samples.json'} is missing"
        raise RuntimeError(message) from None
    if samples["scored"] == 0:
        first = next(iter(samples["errors"]), "no error was recorded")
        message = f"{samples['task']}: all {samples['asked']} samples failed, so there is no score; the most frequent cause: {first}"
        raise RuntimeError(message)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    score = accuracy_of([bool(row["scores"]["correct"]) for row in rows if row["status"] == "scored"])
    return EvaluationResult(tasks={samples["task"]: TaskResult(metrics={"accuracy": MetricResult(scores={"accuracy": score})})})
