"""Scores: read from each task's results.yml, gathered into results.json, and shown as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helpers import process_jobs
from helpers.catalogue import STARTER

MADE_BY = "collect_results.py"


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of one results.yml: metric, score, value, stderr, n. Empty when the file is missing, torn, or holds no score.

    The form is nemo-evaluator's EvaluationResult: results.tasks.NAME.metrics.METRIC.scores.SCORE.{value, stats}.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return list(_rows(data["results"]["tasks"]))
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def has_scores(path: Path) -> bool:
    """Whether a results.yml holds at least one score that is a number."""
    return any(row["value"] is not None for row in read_scores(path))


def collect(submission: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """The content of results.json (unsealed): one row a metric, one entry a task. Only tasks that succeeded have rows."""
    rows, entries = [], []
    states = {job["job_id"]: job for job in status["jobs"]}
    for job in submission["jobs"]:
        seen = states[job["job_id"]]
        artifacts = Path(job["job_dir"] or ".") / "artifacts"
        said = process_jobs.read(artifacts / "samples.json") or {}
        succeeded = seen["state"] == "SUCCEEDED"
        if succeeded:
            rows += [{"task": job["task"], "index": job["index"], **row} for row in read_scores(artifacts / "results.yml")]
        entries.append(
            {
                "task": job["task"],
                "index": job["index"],
                "harness": job["harness"],
                "state": seen["state"],
                "reason": seen["reason"],
                "seconds": seen["seconds"],
                "samples_asked": said.get("asked"),
                "samples_failed": said.get("failed"),
                "chance": _chance(job["harness"], job["task"]),
                "results_file": str(artifacts / "results.yml") if succeeded else None,
            }
        )
    return {
        "made_by": MADE_BY,
        "made_from": {"submission.json": submission["seal"]},
        "invocation_id": submission["invocation_id"],
        "model": _model(submission),
        "rows": rows,
        "tasks": entries,
    }


def cell(row: dict[str, Any]) -> str:
    """`0.950 ± 0.035 (40)`: value, standard error and number of samples, as far as they are known."""
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
    number = "" if row["n"] is None else f" ({row['n']})"
    return value + error + number


def table(results: dict[str, Any]) -> Any:
    """The results as a rich table: a row a metric, and a row for each task that has none, with the reason."""
    from rich.table import Table
    from rich.text import Text

    view = Table(title=f"Results of {results['model'] or 'the model'}", title_justify="left")
    for name in ("task", "metric", "value ± stderr (n)", "chance", "failed", "seconds"):
        view.add_column(name, justify="left" if name in ("task", "metric") else "right", overflow="fold")
    for entry in results["tasks"]:
        rows = [row for row in results["rows"] if row["index"] == entry["index"]]
        chance = "" if entry["chance"] is None else f"{entry['chance']:.3f}"
        failed = "" if entry["samples_failed"] is None else str(entry["samples_failed"])
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        for row in rows:
            metric = row["metric"] if row["score"] == row["metric"] else f"{row['metric']} {row['score']}"
            view.add_row(Text(entry["task"]), Text(metric), cell(row), chance, failed, seconds)
        if not rows:
            view.add_row(Text(entry["task"]), Text(f"{entry['state']}: {entry['reason']}", style="red"), "", chance, failed, seconds)
    return view


def _rows(tasks: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for task in tasks.values():
        for metric, content in (task.get("metrics") or {}).items():
            for score, found in (content.get("scores") or {}).items():
                stats = found.get("stats") or {}
                count = stats.get("count")
                yield {
                    "metric": str(metric),
                    "score": str(score),
                    "value": _finite(found.get("value")),
                    "stderr": _finite(stats.get("stderr")),
                    "n": None if count is None else int(count),
                }


def _finite(value: Any) -> float | None:
    """A number that JSON can hold, or None: a harness may write NaN for a score it could not compute."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _chance(harness: str, task: str) -> float | None:
    try:
        table = yaml.safe_load((STARTER / "core_evals" / harness / "tasks.yaml").read_text(encoding="utf-8"))
        return float(table[task.rpartition(".")[2]]["chance"])
    except (OSError, KeyError, TypeError):
        return None


def _model(submission: dict[str, Any]) -> str | None:
    """The model as the endpoint calls it, from the first results.yml that names it."""
    for job in submission["jobs"]:
        try:
            path = Path(job["job_dir"] or ".") / "artifacts" / "results.yml"
            data = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            return str(data["target"]["api_endpoint"]["model_id"])
        except (OSError, KeyError, TypeError, yaml.YAMLError):
            continue
    return None
