"""Scores: read from each task's results.yml, collected in results.json, and shown as a table."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from helpers.common import yaml_files
from helpers.config import tasks
from helpers.config.catalogue import STARTER
from helpers.executors import endpoint_failures, job_folder, record, samples, states, validity
from helpers.statistics import intervals

MADE_BY = "collect_results.py"
NO_COUNTS: Mapping[str, int] = MappingProxyType({})
# Of results.json. Without a version it is from before there were intervals and records, and is still read.
VERSION = 2


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of one results.yml, see `rows_of`. Empty when the file is missing, torn, or has no score."""
    return rows_of(load(path), sample_counts(path.parent))


def rows_of(data: dict[str, Any] | None, counts: Mapping[str, int] = NO_COUNTS) -> list[dict[str, Any]]:
    """The rows of a results.yml's content: part, metric, score, value, stderr, n.

    `part` is that of `named_rows` where there are several (mmlu and its subjects), else None.
    """
    rows = named_rows(data, counts)
    several = len({row["part"] for row in rows}) > 1
    return [{**row, "part": row["part"] if several else None} for row in rows]


def named_rows(data: dict[str, Any] | None, counts: Mapping[str, int] = NO_COUNTS) -> list[dict[str, Any]]:
    """The rows of a results.yml's content, each with the harness's own name of its part: part, metric, score, value, stderr, n.

    `counts`: the samples of parts whose scores come without a count.

    The form is nemo-evaluator's EvaluationResult: results.{tasks,groups}.NAME.metrics.METRIC.scores.SCORE.{value, stats}; a group may
    contain groups. `part` is NAME. Rows that a group repeats from a task are left out. They are sorted by name.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for part, holder in _holders((data or {}).get("results")):
        for metric, content in _mapping(holder.get("metrics")).items():
            for score, number in _mapping(_mapping(content).get("scores")).items():
                stats = _mapping(_mapping(number).get("stats"))
                found.setdefault(
                    (part, str(metric), str(score)),
                    {
                        "value": _finite(_mapping(number).get("value")),
                        "stderr": _at_least_zero(stats.get("stderr")),
                        "n": counts.get(part) if (count := _at_least_zero(stats.get("count"))) is None else int(count),
                    },
                )
    return [{"part": part, "metric": metric, "score": score, **row} for (part, metric, score), row in sorted(found.items())]


def sample_counts(artifacts: Path) -> dict[str, int]:
    """The samples of each task and group of lm-evaluation-harness, whose results.yml has none: from the newest of its own results files."""
    data = job_folder.of_lm_eval(artifacts)
    counts = {name: _mapping(one).get("effective") for name, one in _mapping(data.get("n-samples")).items()}
    inside = _mapping(data.get("group_subtasks"))

    def samples(name: str) -> int | None:
        if name in counts or not inside.get(name):
            return _count(counts.get(name))
        parts = [samples(part) for part in inside[name]]
        return None if None in parts else sum(part or 0 for part in parts)

    return {name: number for name in {*counts, *inside} if (number := samples(name)) is not None}


def has_scores(path: Path) -> bool:
    """Whether a results.yml has at least one score that is a number, over at least one sample if it gives a count."""
    return count(rows_of(load(path))) > 0


def count(rows: list[dict[str, Any]]) -> int:
    """How many of the rows are scores: a number, over at least one sample if the count is given."""
    return sum(row["value"] is not None and row["n"] != 0 for row in rows)


def interval(row: Mapping[str, Any], level: float = intervals.LEVEL) -> dict[str, Any] | None:
    """The interval of a row: `low`, `high` and the `method`. None where too little is known, or one sample says nothing of the spread.

    Wilson's for a rate, which has a width even when all samples are right; otherwise that of t, or the normal one without a number.
    """
    value, stderr, n = row["value"], row["stderr"], row["n"]
    if value is None or n == 0:
        return None
    if is_rate(row):
        found = intervals.wilson(round(value * n), n, level)
    elif stderr and n != 1:
        found = intervals.of_mean(value, stderr, n - 1 if n else math.inf, level)
    else:
        return None
    return found._asdict()


def is_rate(row: Mapping[str, Any]) -> bool:
    """Whether a row is a share of n samples: a whole number of them is right, and its standard error, if given, is that of a share."""
    value, stderr, n = row["value"], row["stderr"], row["n"]
    if value is None or not n or not 0 <= value <= 1 or abs(value * n - round(value * n)) > 1e-6 * n:
        return False
    # Harnesses divide by n or by n - 1.
    expected = [math.sqrt(value * (1 - value) / one) for one in (n, n - 1) if one]
    return stderr is None or any(math.isclose(stderr, one, rel_tol=0.01, abs_tol=1e-9) for one in expected)


def collect(
    submission: dict[str, Any], status: dict[str, Any], about: dict[str, Any], model: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of results.json (unsealed): a row for each metric, an entry for each task. Only tasks that succeeded have rows.

    `about`: the run's record (record.of_run); `model`: the run's model.json, for the artifacts that were evaluated.
    """
    wanted = ("reference", "backend", "name", "version", "digest")
    named = {key: {name: one[name] for name in wanted} for key, one in (model["models"] if model else {}).items()}
    rows_by_id = {job["job_id"]: job for job in status["jobs"]}
    collected = [_of_job(job, rows_by_id[job["job_id"]], about) for job in submission["jobs"]]
    return {
        "made_by": MADE_BY,
        "version": VERSION,
        "made_from": {"submission.json": submission["seal"], **({"model.json": model["seal"]} if model else {})},
        "invocation_id": submission["invocation_id"],
        "model": _model(submission) or about["model"]["name"],
        **({"artifacts": named} if named else {}),
        "record": about,
        "rows": [row for _, rows in collected for row in rows],
        "tasks": [entry for entry, _ in collected],
    }


def _of_job(job: dict[str, Any], seen: dict[str, Any], about: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The entry and the rows of one job in results.json; `seen`: its row of status.json."""
    artifacts = Path(job["job_dir"] or ".") / "artifacts"
    said = _mapping(job_folder.read(artifacts / "samples.json"))
    result = load(artifacts / "results.yml") or {}
    entry = {
        "task": job["task"],
        "index": job["index"],
        "harness": job["harness"],
        "state": seen["state"],
        "reason": seen["reason"],
        "seconds": seen["seconds"],
        "samples_asked": _count(said.get("asked")),
        "samples_failed": _count(said.get("failed")),
        "refusal": endpoint_failures.most_frequent(artifacts.parent),
        "answers": seen.get("answers"),
        "chance": _chance(job["harness"], job["task"]),
        "record": record.of_task(job["task"], artifacts, about, result),
        "validity": None,
        "results_file": None,
    }
    if seen["state"] != states.SUCCEEDED:
        return entry, []
    found = read_scores(artifacts / "results.yml")
    rows = [{"task": job["task"], "index": job["index"], **row, "interval": interval(row)} for row in found]
    verdict = validity.of_task(entry, rows, samples.read(artifacts), about["limits"], _needs_whole_answers(job["harness"]))
    return {**entry, "validity": verdict, "results_file": str(artifacts / "results.yml")}, rows


def cell(row: dict[str, Any]) -> str:
    """`0.950 [0.835, 0.986] (40)`: value, interval and number of samples, as far as known; `± 0.035`, the standard error, without one."""
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
    if known := row.get("interval"):
        error = f" [{known['low']:.3f}, {known['high']:.3f}]"
    number = "" if row["n"] is None else f" ({row['n']})"
    return value + error + number


def table(results: dict[str, Any]) -> Any:
    """The results as a rich table: a row for each metric, and for each task without results the reason."""
    from rich.table import Table
    from rich.text import Text

    view = Table(title=f"Results of {results['model'] or 'the model'}", title_justify="left")
    for name in ("task", "metric", "value [95%] (n)", "chance", "failed", "seconds"):
        view.add_column(name, justify="left" if name in ("task", "metric") else "right", overflow="fold")
    labels = tasks.labels(results["tasks"])
    for entry in results["tasks"]:
        label = labels[entry["index"]]
        rows = [row for row in results["rows"] if row["index"] == entry["index"]]
        chance = "" if entry["chance"] is None else f"{entry['chance']:.3f}"
        failed = "" if entry["samples_failed"] is None else str(entry["samples_failed"])
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        for row in rows:
            metric = row["metric"] if row["score"] == row["metric"] else f"{row['metric']} {row['score']}"
            name = f"{row['part']}: {metric}" if row.get("part") else metric
            view.add_row(Text(label), Text(name), cell(row), chance, failed, seconds)
        if not rows:
            failure = f"{entry['state']}: {entry['reason']}" if entry["reason"] else entry["state"]
            view.add_row(Text(label), Text(failure, style="red"), "", chance, failed, seconds)
    return view


def notices(results: dict[str, Any]) -> list[str]:
    """Warnings for the table, each with the fix.

    They are about samples that failed, and so count in no score, answers that carried nothing to score or were cut, and scores that look
    like no answer at all.
    """
    found = []
    for entry in (entry for entry in results["tasks"] if entry["state"] == states.SUCCEEDED):
        if entry["samples_failed"]:
            said = f"; the endpoint answers {entry['refusal']}" if entry.get("refusal") else ""
            found.append(
                f"{entry['task']}: {entry['samples_failed']} of {entry['samples_asked']} samples failed and count in no score{said}"
            )
        if counts := entry.get("answers"):
            found += [f"{entry['task']}: {text}" for text in endpoint_failures.of_answers(counts)]
            if counts["cut_text"] and _needs_whole_answers(entry["harness"]):
                were, fix = endpoint_failures.CUT_TEXT
                found.append(f"{entry['task']}: {counts['cut_text']} of {counts['seen']} answers {were}; {fix}")
        reasons = (entry.get("validity") or {}).get("reasons", [])
        found += [f"{entry['task']}: {reason['what']}; {reason['fix']}" for reason in reasons if reason["share"] is None]
    return found


def notes(results: dict[str, Any]) -> list[str]:
    """What is worth knowing of some tasks and says nothing against them, each once, with the tasks."""
    labels = tasks.labels(results["tasks"])
    found: dict[str, list[str]] = {}
    for entry in results["tasks"]:
        for note in (entry.get("validity") or {}).get("notes", []):
            found.setdefault(note, []).append(labels[entry["index"]])
    return [f"{note}: {', '.join(names)}" for note, names in found.items()]


def load(path: Path) -> dict[str, Any] | None:
    """The content of a results.yml, or None when it is missing, torn, or no mapping."""
    try:
        return parse(path.read_bytes())
    except OSError:
        return None


def parse(content: bytes) -> dict[str, Any] | None:
    """The data of a results.yml, or None when it is torn or no mapping."""
    try:
        data = yaml_files.load(content)
    except (ValueError, yaml.YAMLError):
        return None
    return data if isinstance(data, dict) else None


def _holders(results: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each task and each group of some results by name, tasks first."""
    for kind in ("tasks", "groups"):
        for name, holder in _mapping(_mapping(results).get(kind)).items():
            yield str(name), _mapping(holder)
            yield from _holders({"groups": _mapping(holder).get("groups")})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _finite(value: Any) -> float | None:
    """A number that JSON has, or None. A harness may write NaN for a score that it could not compute, and YAML reads 1e-05 as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _at_least_zero(value: Any) -> float | None:
    """The same for a standard error or a count, which cannot be negative."""
    number = _finite(value)
    return None if number is None or number < 0 else number


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _needs_whole_answers(harness: str) -> bool:
    """The starter tasks cut each answer after its first sentence, and are made for that."""
    return not (STARTER / "core_evals" / harness).is_dir()


def _chance(harness: str, task: str) -> float | None:
    try:
        table = yaml_files.load((STARTER / "core_evals" / harness / "tasks.yaml").read_text(encoding="utf-8"))
        return float(table[task.rpartition(".")[2]]["chance"])
    except (OSError, KeyError, TypeError):
        return None


def _model(submission: dict[str, Any]) -> str | None:
    """The model as the endpoint calls it, from the first results.yml that names it."""
    for job in submission["jobs"]:
        data = load(Path(job["job_dir"] or ".") / "artifacts" / "results.yml") or {}
        if name := _mapping(_mapping(data.get("target")).get("api_endpoint")).get("model_id"):
            return str(name)
    return None
