"""helpers/steps/gate.py: what a policy decides, from which numbers, and how seldom it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.common import files
from helpers.common.errors import BadInput, EvalmakeError, Inconclusive, NoGo
from helpers.statistics import paired
from helpers.steps import gate
from scored_runs import Runs, rates


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    (tmp_path / "runs").mkdir()
    return Runs(tmp_path / "runs")


def judged(runs: Runs, policy: str, *names: str, allow: str = "") -> tuple[str, list[tuple[str, str, str]]]:
    """The decision of gate.json, and each rule's; the exit code must fit."""
    path = runs.folder.parent / "policy.yaml"
    path.write_text(policy)
    code = 0
    try:
        gate.judge(str(path), " ".join(names), allow, None, runs.folder)
    except (NoGo, Inconclusive) as error:
        code = error.exit_code
    found = files.read_json(runs.folder / names[0] / "gate.json", "gate")
    assert code == {"GO": 0, "NO-GO": 5, "INCONCLUSIVE": 6}[found["decision"]]
    return found["decision"], [(one["task"], one["rule"], one["decision"]) for one in found["rules"]]


def test_a_score_above_a_limit_is_go_only_if_its_whole_interval_is(runs: Runs) -> None:
    name = runs.add({"a": rates(80, 100)})  # [0.711, 0.867]
    for limit, decision in ((0.7, "GO"), (0.72, "INCONCLUSIVE"), (0.86, "INCONCLUSIVE"), (0.9, "NO-GO")):
        found = judged(runs, f"tasks: {{a: {{at_least: {limit}}}}}", name)
        assert found == (decision, [("a", "validity", "GO"), ("a", "at_least", decision)])


def test_a_loss_within_the_margin_is_go_beyond_it_no_go_and_in_doubt_neither(runs: Runs) -> None:
    base = runs.add({"a": rates(800, 1000)})
    for right, decision in ((800, "GO"), (790, "GO"), (772, "INCONCLUSIVE"), (700, "NO-GO")):
        name = runs.add({"a": rates(right, 1000)})
        assert judged(runs, "tasks: {a: {margin: 0.03}}", name, base)[0] == decision, right
        relative = judged(runs, "tasks: {a: {relative_margin: 0.0375}}", name, base)
        assert relative[1][-1] == ("a", "relative_margin", decision)


def test_what_is_undecided_says_how_many_samples_would_decide(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    name = runs.add({"a": rates(74, 100)})
    judged(runs, "tasks: {a: {at_least: 0.7}}", name)
    needed = json.loads((runs.folder / name / "gate.json").read_text())["rules"][1]["needed"]
    assert 400 < needed < 700
    assert f"about {needed} samples decide" in capsys.readouterr().out
    larger = runs.add({"a": rates(74 * 6, 600)})
    assert judged(runs, "tasks: {a: {at_least: 0.7}}", larger)[0] == "GO"


def test_doubtful_scores_are_inconclusive_unless_the_policy_accepts_them(runs: Runs) -> None:
    counts = {"seen": 100, "scorable": 80, "cut_text": 0, "cut": 20, "shape": None}
    counts |= dict.fromkeys(("reasoning", "tool_calls", "refused", "empty", "unreadable"), 0)
    good, cut = runs.add({"a": rates(90, 100)}), runs.add({"a": rates(90, 100)}, answers=counts)
    assert judged(runs, "tasks: {a: {at_least: 0.5}}", cut) == (
        "INCONCLUSIVE",
        [("a", "validity", "INCONCLUSIVE"), ("a", "at_least", "GO")],
    )
    assert judged(runs, "tasks: {a: {at_least: 0.5, validity: doubtful}}", cut)[0] == "GO"
    assert judged(runs, "tasks: {a: {margin: 0.2}}", good, cut)[0] == "INCONCLUSIVE", "the baseline counts too"
    assert judged(runs, "tasks: {a: {at_least: 0.5}}", good, cut)[0] == "GO", "unless no rule compares with it"


def test_one_broken_rule_is_no_go_whatever_else_is_undecided(runs: Runs) -> None:
    name = runs.add({"a": rates(80, 100), "b": rates(10, 100), "c": rates(99, 100)})
    found = judged(runs, "tasks: {a: {at_least: 0.75}, c: {at_least: 0.5}}\nothers: {at_least: 0.5}", name)
    assert found[0] == "NO-GO"
    assert [one[2] for one in found[1] if one[1] == "at_least"] == ["INCONCLUSIVE", "GO", "NO-GO"]


def test_a_task_without_scores_is_inconclusive(runs: Runs) -> None:
    def failed(found: dict) -> None:  # type: ignore[type-arg]
        found["tasks"][1] |= {"state": "FAILED", "validity": None, "results_file": None}
        found["rows"] = found["rows"][:1]

    name = runs.add({"a": rates(80, 100), "b": rates(80, 100)}, change=failed)
    assert judged(runs, "others: {at_least: 0.5}", name)[1][-1] == ("b", "scores", "INCONCLUSIVE")
    base = runs.add({"a": rates(80, 100)})
    both = runs.add({"a": rates(80, 100), "b": rates(80, 100)})
    assert judged(runs, "others: {margin: 0.5}", both, base)[1][-1] == ("b", "margin", "INCONCLUSIVE"), "the baseline has no such task"


def test_runs_that_measure_something_else_are_refused_and_what_is_allowed_is_written(runs: Runs) -> None:
    a, b = runs.add({"a": rates(80, 100)}), runs.add({"a": rates(80, 100)}, params={"temperature": 1.0})
    with pytest.raises(BadInput, match="temperature is not set"):
        judged(runs, "tasks: {a: {margin: 0.5}}", a, b)
    assert judged(runs, "tasks: {a: {margin: 0.5}}", a, b, allow="temperature")[0] == "GO"
    assert files.read_json(runs.folder / a / "gate.json", "gate")["allowed"] == [f"temperature is not set in {a} and 1.0 in {b} (a)"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            "tasks: {capitls: {at_least: 0.5}}",
            r"policy.yaml: tasks.capitls: \S+ has no such task \(did you mean capitals\?\); it has capitals",
        ),
        ("tasks: {capitals: {at_lest: 0.5}}", r"policy.yaml: tasks.capitals.*at_lest.*at_least"),
        ("tasks: {capitals: {at_least: high}}", r"tasks.capitals.at_least: \"high\": expected a number"),
        ("tasks: {capitals: {margin: -0.1}}", "expected at least 0"),
        ("tasks: {capitals: {margin: 0.1}}", r'capitals: margin needs a baseline: RUNS="candidate baseline"'),
        ("tasks: {capitals: {at_least: 0.5, metric: acuracy}}", r"capitals has no single score acuracy \(did you mean accuracy\?\)"),
        ("tasks: {capitals: {at_least: 0.5}, capitals: {}}", "not YAML: a key is given twice"),
        ("tasks: [", "not YAML"),
        ("", "expected `key: value` lines"),
        ("tasks: {}", "it has no rule"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_in_one_line(runs: Runs, policy: str, said: str) -> None:
    name = runs.add({"capitals": rates(30, 40)})
    with pytest.raises(BadInput, match=said):
        judged(runs, policy, name)
    assert not (runs.folder / name / "gate.json").exists()


def test_a_task_with_several_scores_needs_to_be_told_which(runs: Runs) -> None:
    def two(found: dict) -> None:  # type: ignore[type-arg]
        found["rows"] += [{**found["rows"][0], "metric": "acc_norm", "score": "acc_norm"}]

    name = runs.add({"a": rates(80, 100)}, change=two)
    with pytest.raises(BadInput, match="a has several scores: name one as metric: accuracy, acc_norm"):
        judged(runs, "tasks: {a: {at_least: 0.5}}", name)
    assert judged(runs, "tasks: {a: {at_least: 0.5, metric: acc_norm}}", name)[0] == "GO"


@pytest.mark.parametrize("missing", ["RUNS", "policy"])
def test_runs_or_a_policy_that_do_not_exist(runs: Runs, missing: str) -> None:
    name = runs.add({"a": rates(80, 100)})
    path = runs.folder.parent / "policy.yaml"
    if missing == "RUNS":
        path.write_text("tasks: {a: {at_least: 0.5}}")
    with pytest.raises(EvalmakeError, match="no such run" if missing == "RUNS" else "cannot read"):
        gate.judge(str(path), "nothing" if missing == "RUNS" else name, "", None, runs.folder)


def suites(loss: float, margin: float, repeats: int = 400) -> tuple[float, float]:
    """The shares of GO and of NO-GO among suites of 10 tasks of 500 samples with this true loss, at 15% discordance."""
    chance, count, discordance, tasks = np.random.default_rng(13), 500, 0.15, 10
    go = no_go = 0
    for _ in range(repeats):
        decisions = set()
        for _ in range(tasks):
            shares = [0.6, (discordance - loss) / 2, (discordance + loss) / 2, 0.4 - discordance]
            both, gained, lost, neither = (int(number) for number in chance.multinomial(count, shares))
            difference = (gained - lost) / count

            def interval(level: float, table: tuple[int, ...] = (both, gained, lost, neither)) -> paired.Interval:
                return paired.newcombe(*table, level)  # type: ignore[call-arg, misc]

            decisions.add(gate.decide(difference, interval, -margin, count, tasks)[0])
        no_go += gate.NO_GO in decisions
        go += decisions == {gate.GO}
    return go / repeats, no_go / repeats


def test_equal_models_seldom_get_no_go_and_a_loss_at_the_margin_seldom_go() -> None:
    assert suites(loss=0.0, margin=0.0)[1] <= 0.05
    assert suites(loss=0.03, margin=0.03)[0] <= 0.05


def test_one_task_with_a_loss_at_the_margin_seldom_gets_go() -> None:
    chance, hits, repeats = np.random.default_rng(7), 0, 3000
    for _ in range(repeats):
        table = tuple(int(number) for number in chance.multinomial(500, [0.6, 0.06, 0.09, 0.25]))

        def interval(level: float, table: tuple[int, ...] = table) -> paired.Interval:
            return paired.newcombe(*table, level)  # type: ignore[call-arg, misc]

        hits += gate.decide((table[1] - table[2]) / 500, interval, -0.03, 500)[0] == gate.GO
    assert hits / repeats <= 0.05
