"""The W&B runs that should hold the results of a submission, and how they differ from what a server holds.

The launcher's own exporter (exporters/wandb.py of 0.2.6) makes another run every time it exports a task, leaves out standard errors and
sample counts, lets equal metric names of two tasks overwrite each other (`multi_task`), and reports a failure only in a log that nobody
reads. The runs here have ids derived from the invocation, so exporting twice changes nothing. The names of metrics are the
launcher's. On a cluster the launcher's export job writes the scores first, under the same ids (helpers/executors/slurm/job_scripts.py).
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common.errors import BadInput
from helpers.common.files import shown
from helpers.config import tasks
from helpers.credentials.wandb_server import Held, run_id
from helpers.executors import scores
from helpers.models import wandb_lineage


@dataclass
class WandbRun:
    """A run as W&B should hold it.

    `folders`: HARNESS.TASK to the task's folder, whose files go into the run's artifact. `artifacts`: the models that were evaluated and
    named by artifact, as in results.json.
    """

    id: str
    name: str
    tasks: list[str]
    metrics: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)

    def compare(self, held: Held | None) -> tuple[str, str]:
        """`verified`, `missing` or `wrong` for what the server holds, and the difference in words."""
        if held is None:
            return "missing", "W&B does not hold it"
        off = [name for name, value in self.metrics.items() if not _same(held.summary.get(name), value)]
        if not off:
            return "verified", ""
        first = f"{off[0]} is {json.dumps(held.summary.get(off[0]))} there and {self.metrics[off[0]]} in results.json"
        return "wrong", first + (f" (and {len(off) - 1} more)" if off[1:] else "")

    def lacks_lineage(self, held: Held | None) -> bool:
        """Whether the server holds the run without the models that were evaluated, which the launcher's export job does not record."""
        return held is not None and held.config.get(wandb_lineage.DECLARED, {}) != self.artifacts

    def is_complete(self, held: Held | None) -> bool:
        """Whether the server holds the run's scores and its models."""
        return self.compare(held)[0] == "verified" and not self.lacks_lineage(held)


def expected(submission: dict[str, Any], results: dict[str, Any], settings: dict[str, Any]) -> list[WandbRun]:
    """The runs for results.json: one for each task that succeeded, or with `log_mode: multi_task` one for all of them.

    `settings` is the config's export.wandb. Raises BadInput when results.json was not made from the results.yml of a task.
    """
    invocation, labels = submission["invocation_id"], tasks.labels(submission["jobs"])
    together = settings.get("log_mode") == "multi_task"
    done = {entry["index"] for entry in results["tasks"] if entry["state"] == "SUCCEEDED"}
    jobs = [job for job in submission["jobs"] if job["index"] in done]
    common = {"invocation_id": invocation, "executor": submission["executor"], "model": results["model"]}
    common |= settings.get("extra_metadata") or {}
    made: list[WandbRun] = []
    for chosen in [jobs] if together and jobs else [[job] for job in jobs]:
        label = labels[chosen[0]["index"]]
        if together:
            one = WandbRun(settings.get("run_id") or run_id(invocation), settings.get("name") or f"eval-{invocation}", [])
            one.config = {"benchmarks": [job["task"] for job in chosen], "harnesses": sorted({job["harness"] for job in chosen})}
        else:
            name = f"{settings['name']}-{label}" if settings.get("name") else f"eval-{invocation}-{label}"
            one = WandbRun(run_id(invocation, Path(chosen[0]["job_dir"]).name), name, [])
            one.config = {"job_id": chosen[0]["job_id"], "harness": chosen[0]["harness"], "benchmark": chosen[0]["task"]}
        one.tasks = [labels[job["index"]] for job in chosen]
        one.metrics = metrics({labels[job["index"]]: _named(job, results) for job in chosen})
        one.config |= common
        one.artifacts = results.get("artifacts") or {}
        one.folders = {f"{job['harness']}.{labels[job['index']]}": job["job_dir"] for job in chosen}
        made.append(one)
    return made


def metrics(rows: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The metrics of tasks (label: rows with names) under the launcher's names: PART_METRIC, PART_METRIC_SCORE.

    Standard errors and sample counts are NAME_stderr and NAME_n, unless a metric has that name. Where two scores would share a name, each
    gets its task's label in front; where that is not enough, the words are joined by `/`.
    """
    scored = [(label, row) for label, task in rows.items() for row in task if row["value"] is not None]
    names = [_launchers_name(row) for _, row in scored]
    whole = [f"{label}/{name}" if names.count(name) > 1 else name for (label, _), name in zip(scored, names, strict=True)]
    values: dict[str, float] = {}
    extra: dict[str, float] = {}
    for (label, row), name in zip(scored, whole, strict=True):
        key = "/".join([label, row["part"], row["metric"], row["score"]]) if whole.count(name) > 1 else name
        values[key] = row["value"]
        extra |= {f"{key}_{what}": row[what] for what in ("stderr", "n") if row[what] is not None}
    return extra | values


def _named(job: dict[str, Any], results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a task with the names of their parts, from its results.yml. Raises BadInput unless results.json has the same values."""
    path = Path(job["job_dir"]) / "artifacts" / "results.yml"
    named = scores.named_rows(scores.load(path), scores.sample_counts(path.parent))
    mine = [row for row in results["rows"] if row["index"] == job["index"]]
    keys = ("metric", "score", "value", "stderr", "n")
    if [[row[key] for key in keys] for row in named] != [[row[key] for key in keys] for row in mine]:
        raise BadInput(f"{shown(path)} is not the file that results.json was made from; run `make results` to update results.json")
    return named


def _launchers_name(row: dict[str, Any]) -> str:
    return "_".join([row["part"], row["metric"], *([row["score"]] if row["score"] != row["metric"] else [])])


def _same(there: Any, here: float) -> bool:
    return isinstance(there, (int, float)) and not isinstance(there, bool) and math.isclose(there, here, rel_tol=1e-9, abs_tol=1e-12)
