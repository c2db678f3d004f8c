"""Which scores are valid, doubtful or invalid, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.common import files
from helpers.executors import answers, record, validity
from helpers.executors.samples import Sample

NONE = {"samples_asked": None, "samples_failed": None, "refusal": None, "answers": None, "chance": None, "record": {"params": {}}}


def counts(seen: int, **kinds: int) -> dict[str, Any]:
    nothing = {kind: kinds.get(kind, 0) for kind in answers.NOTHING}
    return {"seen": seen, "scorable": seen - sum(nothing.values()), "cut_text": kinds.get("cut_text", 0), **nothing, "shape": None}


def row(value: float = 0.5, n: int | None = 100) -> dict[str, Any]:
    return {"value": value, "n": n}


def sample(response: str, expected: str) -> Sample:
    return Sample("", "", {}, "", response, expected)


def verdict(rows: list[dict[str, Any]] | None = None, samples: list[Sample] | None = None, cuts_count: bool = True, **entry: Any) -> str:
    found = validity.of_task({**NONE, **entry}, rows or [row()], samples or [], validity.LIMITS, cuts_count)
    return f"{found['verdict']}: {'; '.join(reason['what'] for reason in found['reasons'])}".rstrip(": ")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({}, "valid"),
        ({"cut": 2}, "valid"),  # not over 2%
        ({"cut": 3}, "doubtful: 3 of 100 answers were cut before they said anything"),
        ({"cut": 25}, "doubtful: 25 of 100 answers were cut before they said anything"),
        ({"reasoning": 26}, "invalid: 26 of 100 answers held reasoning only"),
        # Kinds of nothing count together.
        (
            {"empty": 2, "refused": 1},
            "doubtful: 2 of 100 answers were empty; 1 of 100 answers were refused by the model or a content filter",
        ),
        ({"cut_text": 20}, "doubtful: 20 of 100 answers were cut by the limit of tokens and scored as they are"),
    ],
)
def test_answers_that_carry_nothing_or_were_cut_make_scores_doubtful_and_invalid(kinds: dict[str, int], expected: str) -> None:
    assert verdict(answers=counts(100, **kinds)) == expected


def test_cuts_say_nothing_against_a_task_that_is_made_for_them() -> None:
    assert verdict(answers=counts(100, cut_text=100), cuts_count=False) == "valid"


def test_failed_samples_make_scores_doubtful_and_invalid() -> None:
    assert verdict(samples_asked=40, samples_failed=0) == "valid"
    assert verdict(samples_asked=40, samples_failed=1) == "doubtful: 1 of 40 samples failed and count in no score"
    assert verdict(samples_asked=40, samples_failed=11).startswith("invalid: 11 of 40")


def test_a_score_like_guessing_is_doubtful_unless_there_are_too_few_samples_to_tell() -> None:
    assert verdict([row(0.2, 40)], chance=0.2) == "doubtful: the score 0.200 is not above chance, 0.200"
    assert verdict([row(0.225, 40)], chance=0.2) == "valid"
    assert verdict([row(0.0, 4)], chance=0.2, answers=counts(4)) == "valid"
    assert verdict([row(0.1, 40), row(0.9, 40)], chance=0.2) == "valid"
    assert verdict([row(0.0, 40)], answers=counts(40)) == "doubtful: the score 0.000 is not above chance, 0.000"


@pytest.mark.parametrize("n", [4, 40, None])
def test_zero_is_doubtful_where_nothing_says_that_there_were_answers(n: int | None) -> None:
    assert verdict([row(0.0, n)]) == "doubtful: every score is 0, and nothing says whether there were answers"
    assert verdict([row(0.0, n), row(0.1, n)]) == "valid"


def test_the_same_answer_to_different_questions_is_doubtful() -> None:
    said = [sample("Africa", expected) for expected in ("Africa", "Asia") * 5]
    assert verdict(samples=said) == "doubtful: all 10 answers are the same"
    assert verdict(samples=said[:9]) == "valid"
    assert verdict(samples=[*said, sample("Asia", "Asia")]) == "valid"
    assert verdict(samples=[sample("yes", "yes")] * 40) == "valid", "the right answer is the same too"


def test_a_limit_that_was_asked_for_and_all_right_are_notes() -> None:
    entry = {**NONE, "record": {"params": {"limit_samples": 10}}, "answers": counts(10), "samples_asked": 10, "samples_failed": 0}
    found = validity.of_task(entry, [row(1.0, 10)], [], validity.LIMITS, True)
    assert found == {"verdict": "valid", "reasons": [], "notes": ["only 10 samples of the task were asked for", "all answers are right"]}


def test_the_config_sets_the_limits(tmp_path: Path) -> None:
    config = {
        "run": {"validity": {"doubtful": 0.1, "invalid": None}},
        "execution": {"type": "process"},
        "deployment": {"type": "none"},
        "target": {"api_endpoint": {"url": "http://localhost/v1/chat/completions", "model_id": "m", "api_key_name": None}},
        "evaluation": {"tasks": [{"name": "capitals"}]},
    }
    files.write_yaml(tmp_path / "config.yaml", config, "config", "t", {})
    limits = record.of_run(tmp_path)["limits"]
    assert limits == {"doubtful": 0.1, "invalid": 0.25}
    found = validity.of_task({**NONE, "answers": counts(100, cut=8)}, [row()], [], limits, True)
    assert found["verdict"] == "valid"


def test_a_share_over_the_limit_of_invalid_is_invalid_even_below_that_of_doubtful() -> None:
    found = validity.of_task({**NONE, "answers": counts(100, cut=30)}, [row()], [], {"doubtful": 0.5, "invalid": 0.25}, True)
    assert (found["verdict"], found["reasons"][0]["limit"]) == ("invalid", 0.25)


def test_the_first_line_counts_the_tasks_and_names_those_that_are_not_valid() -> None:
    def line(*verdicts: str | None) -> str:
        entries = [{"index": index, "validity": {"verdict": one} if one else None} for index, one in enumerate(verdicts)]
        return validity.headline(entries, dict(enumerate("abcd")))

    assert line("valid", "valid") == "All 2 tasks are valid"
    assert line("valid") == "The task is valid"
    assert line("valid", "doubtful", "invalid", None) == "1 of 4 tasks is valid; doubtful: b; invalid: c; without scores: d"
    assert validity.headline([{"index": 0}], {0: "a"}) == "", "an older file says nothing of it"
