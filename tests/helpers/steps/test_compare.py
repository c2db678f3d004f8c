"""helpers/steps/compare.py: which runs are compared, what is refused, and what is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.common.errors import BadInput
from helpers.steps import compare
from scored_runs import Runs, rates


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    (tmp_path / "runs").mkdir()
    return Runs(tmp_path / "runs")


def compared(runs: Runs, *names: str, allow: str = "") -> compare.Comparison:
    return compare.compared(*compare.runs_of(" ".join(names), runs.folder), allow.split())


def test_the_same_samples_are_compared_and_holm_corrects_over_tasks(runs: Runs) -> None:
    one = runs.add({"a": rates(80, 100), "b": rates(50, 100)})
    other = runs.add({"a": rates(65, 100), "b": rates(49, 100)})
    found = compared(runs, one, other)
    assert [
        (row.task, row.difference and round(row.difference.value, 3), row.difference and row.difference.pairs) for row in found.rows
    ] == [
        ("a", 0.15, 100),
        ("b", 0.01, 100),
    ]
    first = found.rows[0]
    assert first.difference
    assert first.difference.p is not None
    assert first.adjusted == pytest.approx(2 * first.difference.p)
    assert (found.allowed, found.warnings) == ([], [])


def test_the_table_names_both_runs_and_shows_samples_that_only_one_got_right(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = runs.add({"a": rates(30, 40)}), runs.add({"a": rates(28, 40)}, model="other")
    compare.show(f"{one} latest", "", 1, runs.folder)
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"A = {one} (m), B = {other} (other)"
    assert re.search(r"^a +accuracy +0\.750 +0\.700 +\+0\.050 \[-0\.0\d+, \+0\.\d+\] +0\.250 +0\.250 +40 +2 +0 ", said.out, re.MULTILINE)
    assert "a a-28, only A is right: question 28" in said.out
    assert "A: answer 28 1.0" in said.out
    assert "a-29" not in said.out, "one of each kind was asked for"
    assert said.err == ""


def test_without_samples_the_scores_are_compared_and_that_is_said(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = runs.add({"a": rates(30, 40)}, keeps=False), runs.add({"a": rates(28, 40)})
    found = compared(runs, one, other).rows[0].difference
    assert found
    assert found.pairs is None
    compare.show(f"{one} {other}", "", None, runs.folder)
    assert "a accuracy: unpaired: score test, Newcombe; no samples pair" in capsys.readouterr().err


PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "max_new_tokens": ({"params": {"max_new_tokens": 32}}, "16 in {a} and 32 in {b}"),
    "temperature": ({"params": {"temperature": 0.7}}, "not set in {a} and 0.7 in {b}"),
    "limit_samples": ({"params": {"limit_samples": 40}}, "not set in {a} and 40 in {b}"),
    "few_shot": ({"params": {"extra": {"num_fewshot": 5}}}, "not set in {a} and 5 in {b}"),
    "tokenizer": ({"params": {"extra": {"tokenizer": "org/other"}}}, "not set in {a} and org/other in {b}"),
    "judge": ({"params": {"extra": {"judge": {"model_id": "j"}}}}, 'not set in {a} and {{"model_id": "j"}} in {b}'),
    "endpoint_type": ({"endpoint": "completions"}, "chat in {a} and completions in {b}"),
    "harness": ({"entry": {"harness": "g"}}, "h in {a} and g in {b}"),
    "digest": ({"record": {"digest": "sha256:b"}}, "sha256:a in {a} and sha256:b in {b}"),
    "image": ({"record": {"image": "eval:2"}}, "eval:1 in {a} and eval:2 in {b}"),
    "task_versions": ({"record": {"task_versions": {"a": 2}}}, 'not set in {a} and {{"a": 2}} in {b}'),
    "prompt": ({"record": {"prompt": {"chat_template_sha": "x"}}}, 'not set in {a} and {{"chat_template_sha": "x"}} in {b}'),
    "reasoning": ({"record": {"adapter": {"reasoning": {"end": "</t>"}}}}, 'not set in {a} and {{"end": "</t>"}} in {b}'),
}


def planted(runs: Runs, **given: Any) -> str:
    entry, about = given.pop("entry", {}), given.pop("record", {})

    def change(found: dict[str, Any]) -> None:
        found["tasks"][0] |= entry
        found["tasks"][0]["record"] |= {"digest": "sha256:a", "image": "eval:1", **about}

    return runs.add({"a": rates(30, 40)}, change=change, **given)


@pytest.mark.parametrize("key", PLANTED)
def test_runs_that_differ_in_what_the_scores_mean_are_refused_with_both_values(runs: Runs, key: str) -> None:
    given, values = PLANTED[key]
    a, b = planted(runs), planted(runs, **given)
    with pytest.raises(BadInput) as refused:
        compared(runs, a, b)
    said = f"{key} is {values.format(a=a, b=b)} (a)"
    assert str(refused.value) == f'the scores do not mean the same: {said}; ALLOW="{key}" compares them nevertheless'
    assert compared(runs, a, b, allow=key).allowed == [said]


def test_every_planted_difference_is_named_at_once(runs: Runs) -> None:
    given: dict[str, Any] = {}
    for one, _ in PLANTED.values():
        for name, value in one.items():
            given[name] = {**given.get(name, {}), **value} if isinstance(value, dict) else value
    given["params"]["extra"] = {
        name: value for one, _ in PLANTED.values() for name, value in one.get("params", {}).get("extra", {}).items()
    }
    with pytest.raises(BadInput) as refused:
        compared(runs, planted(runs), planted(runs, **given))
    assert [key for key in PLANTED if f"{key} is " not in str(refused.value)] == []


def test_what_is_allowed_stays_in_the_first_line(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = planted(runs), planted(runs, params={"max_new_tokens": 32})
    compare.show(f"{a} {b}", "max_new_tokens", None, runs.folder)
    assert capsys.readouterr().out.splitlines()[0].startswith("Not the same measurement: max_new_tokens is 16 in ")
    with pytest.raises(BadInput, match=r"ALLOW=max_tokens: the runs do not differ in max_tokens \(did you mean max_new_tokens\?\)"):
        compared(runs, a, b, allow="max_new_tokens max_tokens")


def test_what_may_change_scores_warns_and_speed_does_not(runs: Runs) -> None:
    a, b = planted(runs), planted(runs, params={"parallelism": 8}, record={"digest": None, "evaluator": "0.3"})
    assert compared(runs, a, b).warnings == [
        f"digest is sha256:a in {a} and not set in {b} (a)",
        f"evaluator is not set in {a} and 0.3 in {b} (a)",
    ]


def test_an_older_file_without_records_is_compared_with_a_warning(runs: Runs) -> None:
    def older(found: dict[str, Any]) -> None:
        for key in ("version", "record"):
            del found[key]
        for entry in found["tasks"]:
            del entry["record"], entry["validity"]
        for row in found["rows"]:
            del row["interval"]

    a, b = runs.add({"a": rates(30, 40)}, change=older), runs.add({"a": rates(30, 40)})
    assert compared(runs, a, b).warnings == [f"record is not known in {a} and known in {b} (a)"]


def test_samples_that_mostly_do_not_pair_are_other_samples(runs: Runs) -> None:
    a, b = runs.add({"a": rates(30, 40)}), runs.add({"a": rates(30, 38)})
    assert compared(runs, a, b).warnings == [f"samples is 40, 38 of them in both in {a} and 38, 38 of them in both in {b} (a)"]
    c = runs.add({"a": rates(30, 40)})
    path = runs.folder / c / "jobs/a.0/artifacts/predictions.jsonl"
    path.write_text(path.read_text().replace('"id": "a-', '"id": "other-'))
    with pytest.raises(BadInput, match="samples is 40, 0 of them in both"):
        compared(runs, a, c)


def test_a_task_that_is_not_valid_is_named(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"seen": 40, "scorable": 32, "cut_text": 0, "cut": 8, "shape": None}
    counts |= dict.fromkeys(("reasoning", "tool_calls", "refused", "empty", "unreadable"), 0)
    a, b = runs.add({"a": rates(30, 40)}), runs.add({"a": rates(30, 40)}, answers=counts)
    compare.show(f"{a} {b}", "", None, runs.folder)
    assert f"a is doubtful in {b}; `make results RUN={b}` says why" in capsys.readouterr().err


def test_runs_that_cannot_be_compared(runs: Runs) -> None:
    a, b = runs.add({"a": rates(3, 4)}), runs.add({"b": rates(3, 4)})
    with pytest.raises(BadInput, match=f"the runs have no task in common: {a} has a and {b} has b"):
        compared(runs, a, b)
    for words, said in {
        a: r'RUNS="[^"]+": expected two runs',
        f"{a} {b} {a}": "expected two runs",
        f"{a} nothing": "RUNS=nothing: no such run",
    }.items():
        with pytest.raises(BadInput, match=said):
            compare.show(words, "", None, runs.folder)
    (runs.folder / b / "results.json").unlink()
    with pytest.raises(BadInput, match=f"{b} has no results yet; `make eval RUN={b}` finishes it"):
        compared(runs, a, b)
    (runs.folder / a / "results.json").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        compared(runs, a, a)
