"""Comparing the scores of two runs, task by task, unless they measure something else."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from helpers.common import console, files, run_folder
from helpers.common.console import Cell
from helpers.common.errors import BadInput, nearest, one_line
from helpers.config import tasks
from helpers.executors import comparable, differences, samples, states
from helpers.executors.differences import Difference, Series
from helpers.statistics import multiple
from helpers.statistics.intervals import LEVEL

# Below this share of pairs the two did not answer the same questions.
PAIRING = 0.5
SAMPLES = "samples"
LONGEST = 160
# A task by its short name, and which one of that name it is in its run.
Key = tuple[str, int]


class Run(NamedTuple):
    """A run that has ended: its id, its results.json, and its tasks with scores by key."""

    id: str
    results: dict[str, Any]
    entries: dict[Key, dict[str, Any]]

    def rows(self, key: Key) -> list[dict[str, Any]]:
        """The rows of a task; of a benchmark with parts only those of the whole, if it has any."""
        rows = [row for row in self.results["rows"] if row["index"] == self.entries[key]["index"]]
        return [row for row in rows if row["part"] == key[0]] or rows


class Compared(NamedTuple):
    """One metric of one task in two runs. `difference` is None where one has no value; `adjusted` is its p-value, corrected by Holm."""

    task: str
    one: dict[str, Any]
    other: dict[str, Any]
    difference: Difference | None
    series: tuple[Series, Series]
    adjusted: float | None = None

    @property
    def metric(self) -> str:
        """The metric as the table of results names it."""
        name = self.one["metric"] if self.one["score"] == self.one["metric"] else f"{self.one['metric']} {self.one['score']}"
        return f"{self.one['part']}: {name}" if self.one["part"] and self.one["part"] != self.task else str(name)


class Comparison(NamedTuple):
    """Two runs, what was compared, what was allowed to differ though it changes the meaning, and what else differs."""

    one: Run
    other: Run
    rows: list[Compared]
    allowed: list[str]
    warnings: list[str]


def runs_of(text: str, runs: Path = run_folder.RUNS) -> list[Run]:
    """The runs that RUNS names, separated by spaces. Raises BadInput for a run that does not exist, has not ended, or has no scores."""
    return [_run(word, runs) for word in text.split()]


def _run(word: str, runs: Path) -> Run:
    name = run_folder.resolve(word, runs, "RUNS")
    path = runs / name / "results.json"
    if not path.exists():
        raise BadInput(f"RUNS={word}: {name} has no results yet; `make eval RUN={name}` finishes it")
    results = files.read_json(path, "results")
    entries, times = {}, Counter[str]()
    for entry in results["tasks"]:
        short = entry["task"].rpartition(".")[2]
        if entry["state"] == states.SUCCEEDED:
            entries[short, times[short]] = entry
        times[short] += 1
    if not entries:
        raise BadInput(f"RUNS={word}: no task of {name} has scores; `make logs RUN={name}` shows why")
    return Run(name, results, entries)


def compared(one: Run, other: Run, allow: Sequence[str]) -> Comparison:
    """Compare the tasks that both runs have scores of.

    Raises BadInput when there is none, when something differs that changes what the scores mean and is not in `allow`, and for a key in
    `allow` that names no such difference.
    """
    common = [key for key in one.entries if key in other.entries]
    if not common:
        listed = " and ".join(f"{run.id} has {', '.join(dict.fromkeys(name for name, _ in run.entries))}" for run in (one, other))
        raise BadInput(f"the runs have no task in common: {listed}")
    labels = tasks.labels(one.results["tasks"])
    found: dict[comparable.Mismatch, list[str]] = {}
    rows: list[Compared] = []
    for key in common:
        mine, theirs, label = one.entries[key], other.entries[key], labels[one.entries[key]["index"]]
        of_task = comparable.mismatches(mine, theirs)
        kept, pairing = _rows(one, other, key, label)
        for mismatch in [*of_task, *pairing]:
            found.setdefault(mismatch, []).append(label)
        rows += kept
    found |= {mismatch: [] for mismatch in comparable.of_versions(one.results, other.results)}
    known = {mismatch.key for mismatch in found if mismatch.blocks}
    for word in allow:
        if word not in known:
            raise BadInput(f"ALLOW={word}: the runs do not differ in {word}{nearest(word, known)}; leave it out")
    if blocking := [_said(one, other, *item) for item in found.items() if item[0].blocks and item[0].key not in allow]:
        keys = " ".join(sorted({mismatch.key for mismatch in found if mismatch.blocks}))
        raise BadInput(f'the scores do not mean the same: {"; ".join(blocking)}; ALLOW="{keys}" compares them nevertheless')
    adjusted = iter(multiple.holm([row.difference.p for row in rows if row.difference and row.difference.p is not None]))
    rows = [row._replace(adjusted=next(adjusted)) if row.difference and row.difference.p is not None else row for row in rows]
    allowed = [_said(one, other, *item) for item in found.items() if item[0].blocks]
    return Comparison(one, other, rows, allowed, [_said(one, other, *item) for item in found.items() if not item[0].blocks])


def _rows(one: Run, other: Run, key: Key, label: str) -> tuple[list[Compared], list[comparable.Mismatch]]:
    """The metrics that both runs have of a task, compared, and the mismatch of their samples if they are not the same."""
    kept = [samples.read(Path(run.entries[key]["results_file"]).parent) for run in (one, other)]
    theirs = {(row["part"], row["metric"], row["score"]): row for row in other.rows(key)}
    rows, pairing = [], []
    for row in one.rows(key):
        if match := theirs.get((row["part"], row["metric"], row["score"])):
            series = samples.series(kept[0], row), samples.series(kept[1], match)
            rows.append(Compared(label, row, match, differences.between(row, match, *series), series))
            sizes, shared = [len(part) for part in series], len(series[0].keys() & series[1].keys())
            if all(sizes) and (shared < max(sizes)):
                said = [f"{size}, {shared} of them in both" for size in sizes]
                pairing = [comparable.Mismatch(SAMPLES, said[0], said[1], shared < PAIRING * min(sizes))]
    return rows, pairing


def _said(one: Run, other: Run, mismatch: comparable.Mismatch, labels: list[str]) -> str:
    where = f" ({', '.join(labels)})" if labels else ""
    return f"{mismatch.key} is {mismatch.one} in {one.id} and {mismatch.other} in {other.id}{where}"


def show(text: str, allow: str, number: int | None = None, runs: Path = run_folder.RUNS) -> None:
    """Print the comparison of the two runs that `text` names on stdout; `number`: how many flips of each kind to print.

    Raises BadInput as runs_of and compared do, and unless there are two runs.
    """
    found = runs_of(text, runs)
    if len(found) != 2:  # noqa: PLR2004
        raise BadInput(f'RUNS="{text}": expected two runs, such as RUNS="ID latest"; `make runs` lists them')
    comparison = compared(found[0], found[1], allow.split())
    a, b = comparison.one, comparison.other
    out = console.rich_console(sys.stdout)
    for difference in comparison.allowed:
        out.print(f"Not the same measurement: {difference}", markup=False)
    out.print(f"A = {a.id} ({a.results['model']}), B = {b.id} ({b.results['model']})", markup=False)
    head = ["task", "metric", "A", "B", "A - B [95%]", "p", "p (Holm)", "pairs", "only A", "only B", "visible"]
    console.print_table("Differences", head, [_cells(row) for row in comparison.rows], right=tuple(head[2:]))
    for row in comparison.rows:
        if row.difference and row.difference.pairs is None:
            console.notice(f"{row.task} {row.metric}: {row.difference.method}; no samples pair, so a difference must be larger to be seen")
        if number:
            _show_flips(out, row, number)
    for warning in comparison.warnings:
        console.notice(warning)
    for run in (a, b):
        for entry in run.results["tasks"]:
            if (verdict := (entry.get("validity") or {}).get("verdict", "valid")) != "valid":
                console.notice(f"{entry['task']} is {verdict} in {run.id}; `make results RUN={run.id}` says why")


def _cells(row: Compared) -> list[str | Cell]:
    values: list[str | Cell] = [
        row.task,
        row.metric,
        *("-" if one["value"] is None else f"{one['value']:.3f}" for one in (row.one, row.other)),
    ]
    if (found := row.difference) is None:
        return [*values, *["-"] * 7]
    interval = found.interval(LEVEL)
    ends = f" [{interval.low:+.3f}, {interval.high:+.3f}]" if interval else ""
    flips = ["-", "-"] if found.discordance is None else [str(len(found.gained)), str(len(found.lost))]
    visible = found.visible()
    return [
        *values,
        f"{found.value:+.3f}{ends}",
        "-" if found.p is None else f"{found.p:.3f}",
        "-" if row.adjusted is None else Cell(f"{row.adjusted:.3f}", "bold" if row.adjusted < 1 - LEVEL else ""),
        "-" if found.pairs is None else str(found.pairs),
        *flips,
        "-" if visible is None else f"{visible:.3f}",
    ]


def _show_flips(out: Any, row: Compared, number: int) -> None:
    """Print the first samples that only one of the runs got right."""
    if not row.difference:
        return
    for name, keys in (("A", row.difference.gained), ("B", row.difference.lost)):
        for key in keys[:number]:
            mine, theirs = (series[key] for series in row.series)
            said = (
                f"{what}: {one_line(text)[:LONGEST]}"
                for what, text in (("expected", mine.expected), ("A", mine.response), ("B", theirs.response))
            )
            out.print(f"{row.task} {key[1]}, only {name} is right: {one_line(mine.prompt)[-LONGEST:]}", markup=False)
            out.print("\n".join(f"    {line}" for line in said), markup=False)
