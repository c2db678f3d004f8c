"""Whether a candidate may go on: the rules of a policy, decided by the ends of intervals."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from helpers.common import console, files, run_folder, yaml_files
from helpers.common.console import Cell, counted
from helpers.common.errors import BadInput, Inconclusive, NoGo, nearest, one_line
from helpers.common.files import shown
from helpers.config import tasks
from helpers.executors import scores, validity
from helpers.statistics.intervals import LEVEL, Interval
from helpers.steps import compare
from helpers.steps.compare import Comparison, Run

MADE_BY = "gate.py"
GO, NO_GO, INCONCLUSIVE = "GO", "NO-GO", "INCONCLUSIVE"
VERDICTS = (validity.VALID, validity.DOUBTFUL, validity.INVALID)  # from the best to the worst
MARGINS = ("margin", "relative_margin")
AT_LEAST = "at_least"


class Ruled(NamedTuple):
    """One rule for one task: the decision, why, and about how many samples would decide it."""

    task: str
    rule: str
    decision: str
    why: str
    needed: int | None = None


def decide(
    value: float, interval: Callable[[float], Interval | None], limit: float, count: int | None, rules: int = 1
) -> tuple[str, int | None]:
    """Whether a value is above a limit: the decision, and about how many samples would give one, from the `count` there are.

    GO when the whole 95% interval is: a model at the limit itself gets it in 2.5% of cases. NO-GO when a wider one is below, so that among
    all `rules` of a policy a false alarm is as rare as with one.
    """
    close, wide = interval(LEVEL), interval(1 - (1 - LEVEL) / rules)
    if close is None or wide is None:
        return INCONCLUSIVE, None
    if close.low > limit:
        return GO, None
    if wide.high < limit:
        return NO_GO, None
    distance = abs(value - limit)
    reach = value - close.low if value > limit else wide.high - value
    return INCONCLUSIVE, math.ceil(count * (reach / distance) ** 2) if count and distance > 1e-9 else None  # noqa: PLR2004


def judge(policy_path: str, runs_text: str, allow: str, out: str | None = None, runs: Path = run_folder.RUNS) -> None:
    """Print the decision on the first run of `runs_text`, the candidate, compared with the second, if any, and write gate.json.

    `out`: where, in place of the candidate's folder. Raises BadInput as compare does, and for a policy that does not fit its schema or the
    runs; NoGo and Inconclusive when the decision is one of these.
    """
    policy = _policy(policy_path)
    found = compare.runs_of(runs_text, runs)
    if len(found) not in (1, 2):
        raise BadInput(f'RUNS="{runs_text}": expected a candidate, or a candidate and a baseline')
    candidate, baseline = found[0], found[1] if found[1:] else None
    wanted = _rules_of(policy, candidate, baseline is not None, policy_path)
    comparison = compare.compared(candidate, baseline, allow.split()) if baseline else None
    number = sum(rule in rules for rules in wanted.values() for rule in (AT_LEAST, *MARGINS))
    ruled = [one for index, rules in wanted.items() for one in _judged(index, rules, candidate, comparison, max(1, number))]
    decisions = {one.decision for one in ruled}
    decision = next((one for one in (NO_GO, INCONCLUSIVE) if one in decisions), GO)
    seals = {f"runs/{run.id}/results.json": run.results["seal"] for run in found}
    document = {
        "made_by": MADE_BY,
        "made_from": {shown(policy_path): files.sha256_bytes(files.read_text(policy_path).encode()), **seals},
        "candidate": candidate.id,
        "baseline": baseline.id if baseline else None,
        "decision": decision,
        "allowed": comparison.allowed if comparison else [],
        "rules": [one._asdict() for one in ruled],
    }
    out = out or str(runs / candidate.id / "gate.json")
    files.write_json(out, document, "gate")
    _report(document, ruled, comparison.warnings if comparison else [], out)


def _report(document: Mapping[str, Any], ruled: list[Ruled], warnings: list[str], out: str) -> None:
    of = f" against {document['baseline']}" if document["baseline"] else ""
    allowed = f"; not the same measurement: {'; '.join(document['allowed'])}" if document["allowed"] else ""
    title = f"{document['decision']}: {document['candidate']}{of}{allowed}"
    styles = {GO: "green", NO_GO: "red", INCONCLUSIVE: "yellow"}
    rows: list[list[str | Cell]] = [
        [
            one.task,
            one.rule,
            Cell(one.decision, styles[one.decision]),
            one.why + (f"; about {one.needed} samples decide" if one.needed else ""),
        ]
        for one in ruled
    ]
    if out != "-":
        console.print_table(title, ["task", "rule", "decision", "why"], rows)
        console.say(f"Gate: {shown(out)}")
    for warning in warnings:
        console.notice(warning)
    governing = [f"{one.task} {one.rule}: {one.why}" for one in ruled if one.decision == document["decision"]]
    if document["decision"] == NO_GO:
        raise NoGo(f"NO-GO: {counted(len(governing), 'rule')} broken: {'; '.join(governing)}")
    if document["decision"] == INCONCLUSIVE:
        raise Inconclusive(f"INCONCLUSIVE: {counted(len(governing), 'rule')} cannot be decided: {'; '.join(governing)}")


def _policy(path: str) -> dict[str, Any]:
    try:
        policy = yaml_files.load(files.read_text(path), keys_once=True)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{shown(path)}: not YAML: {one_line(error)}") from error
    files.validate(policy, "policy", shown(path))
    if not any((policy.get("tasks") or {}).values()) and not policy.get("others"):
        raise BadInput(f"{shown(path)}: it has no rule; give at least one, such as tasks: {{capitals: {{at_least: 0.6}}}}")
    return dict(policy)


def _rules_of(policy: Mapping[str, Any], candidate: Run, has_baseline: bool, path: str) -> dict[int, dict[str, Any]]:
    """The rules of each task of the candidate by the task's index. Raises BadInput for a task that it does not have."""
    labels = tasks.labels(candidate.results["tasks"])
    names = {label: index for index, label in labels.items()}
    names |= {label.rpartition(".")[2]: index for index, label in labels.items() if label.rpartition(".")[2] not in names}
    wanted: dict[int, dict[str, Any]] = {}
    for name, rules in (policy.get("tasks") or {}).items():
        if name not in names:
            raise BadInput(
                f"{shown(path)}: tasks.{name}: {candidate.id} has no such task{nearest(name, names)}; it has {', '.join(labels.values())}"
            )
        wanted[names[name]] = rules
    if others := policy.get("others"):
        wanted |= {index: others for index in labels if index not in wanted}
    for index, rules in wanted.items():
        if not has_baseline and (margin := next((one for one in MARGINS if one in rules), None)):
            raise BadInput(f'{shown(path)}: {labels[index]}: {margin} needs a baseline: RUNS="candidate baseline"')
    return wanted


def _judged(index: int, rules: Mapping[str, Any], candidate: Run, comparison: Comparison | None, number: int) -> Iterator[Ruled]:
    """Each rule of one task, decided. `number`: how many rules the policy has in all."""
    label = tasks.labels(candidate.results["tasks"])[index]
    key = next((key for key, entry in candidate.entries.items() if entry["index"] == index), None)
    if key is None:
        yield Ruled(label, "scores", INCONCLUSIVE, f"the task has no scores; `make logs RUN={candidate.id}` shows why")
        return
    margins = [rule for rule in MARGINS if rule in rules]
    involved = [candidate, *([comparison.other] if comparison and margins else [])]
    yield from (_validity(label, key, run, rules.get("validity", validity.VALID)) for run in involved if key in run.entries)
    row = _row(candidate.rows(key), rules.get("metric"), label)
    if AT_LEAST in rules:
        yield _above(label, row, rules[AT_LEAST], number)
    for rule in margins:
        assert comparison
        yield _margin(label, rule, rules[rule], row, comparison, number)


def _validity(label: str, key: compare.Key, run: Run, worst: str) -> Ruled:
    found = run.entries[key].get("validity")
    if found is None:
        return Ruled(label, "validity", INCONCLUSIVE, f"not known in {run.id}, which is older; `make results RUN={run.id}` judges it")
    reasons = "".join(f": {reason['what']}; {reason['fix']}" for reason in found["reasons"][:1])
    holds = VERDICTS.index(found["verdict"]) <= VERDICTS.index(worst)
    return Ruled(label, "validity", GO if holds else INCONCLUSIVE, f"{found['verdict']} in {run.id}{reasons}")


def _row(rows: list[dict[str, Any]], metric: str | None, label: str) -> dict[str, Any]:
    """The row of the metric that a rule names, or the only one."""
    named = [row for row in rows if metric in (None, row["metric"], row["score"])]
    if len(named) == 1:
        return named[0]
    known = list(dict.fromkeys(row["score"] for row in rows))
    said = "has several scores: name one" if metric is None else f"has no single score {metric}{nearest(metric, known)}"
    raise BadInput(f"the policy: {label} {said} as metric: {', '.join(known)}")


def _above(label: str, row: dict[str, Any], limit: float, number: int) -> Ruled:
    if row["value"] is None:
        return Ruled(label, AT_LEAST, INCONCLUSIVE, "the score is no number")

    def interval(level: float) -> Interval | None:
        found = scores.interval(row, level)
        return Interval(**found) if found else None

    decision, needed = decide(row["value"], interval, limit, row["n"], number)
    return Ruled(label, AT_LEAST, decision, f"{scores.cell({**row, 'interval': scores.interval(row)})}, limit {limit:g}", needed)


def _margin(label: str, rule: str, margin: float, row: dict[str, Any], comparison: Comparison, number: int) -> Ruled:
    match = next((one for one in comparison.rows if one.one is row), None)
    if match is None or match.difference is None:
        return Ruled(label, rule, INCONCLUSIVE, f"{comparison.other.id} has no such score")
    limit = -margin * (match.other["value"] if rule == "relative_margin" else 1)
    found = match.difference
    decision, needed = decide(found.value, found.interval, limit, found.pairs or row["n"], number)
    ends = f" [{close.low:+.3f}, {close.high:+.3f}]" if (close := found.interval(LEVEL)) else ""
    return Ruled(label, rule, decision, f"{found.value:+.3f}{ends} to {comparison.other.id}, limit {limit:+.3f} ({found.method})", needed)
