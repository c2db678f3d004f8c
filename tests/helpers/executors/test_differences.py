"""The difference between two scores."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.executors import differences
from helpers.executors.samples import Sample
from helpers.statistics import intervals, paired
from helpers.statistics.intervals import LEVEL

NO: dict[Any, Any] = {}


def series(*values: float) -> dict[tuple[str, str], Sample]:
    return {("", str(number)): Sample("", str(number), {"score": value}, "", "", "") for number, value in enumerate(values)}


def row(value: float | None, stderr: float | None = None, n: int | None = None) -> dict[str, Any]:
    return {"value": value, "stderr": stderr, "n": n}


def test_samples_of_0_and_1_are_paired() -> None:
    found = differences.between(row(0.75), row(0.5), series(1, 1, 1, 0), series(1, 0, 0, 1))
    assert found is not None
    assert (found.value, found.pairs, found.discordance) == (0.25, 4, 0.75)
    assert (found.gained, found.lost) == ((("", "1"), ("", "2")), (("", "3"),))
    assert found.p == paired.mcnemar_mid_p(2, 1)
    assert found.interval(0.9) == paired.newcombe(1, 2, 1, 0, 0.9)


def test_only_samples_of_both_count() -> None:
    found = differences.between(row(1.0), row(0.0), series(1, 1, 1), series(0, 0))
    assert found is not None
    assert (found.pairs, found.value) == (2, 1.0)


def test_other_scores_have_the_permutation_and_the_t_interval() -> None:
    found = differences.between(row(0.5), row(0.4), series(0.5, 0.7, 0.3), series(0.4, 0.4, 0.4))
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert found.p == 0.75  # of the eight signs, six are as far from 0
    interval = found.interval(LEVEL)
    assert interval is not None
    assert interval.method == "t"
    assert found.discordance is None


def test_differences_without_any_spread_have_no_interval() -> None:
    found = differences.between(row(0.5), row(0.4), series(0.5, 0.5, 0.5), series(0.4, 0.4, 0.4))
    assert found is not None
    assert found.interval(LEVEL) is None


def test_without_pairs_rates_have_the_score_test_and_other_means_welchs() -> None:
    rates = differences.between(row(0.8, None, 70), row(0.6, None, 80), NO, series(1, 1))
    assert rates is not None
    assert rates.pairs is None
    assert rates.p == intervals.p_of_rates(56, 70, 48, 80)
    interval = rates.interval(LEVEL)
    assert interval is not None
    assert interval[:2] == pytest.approx((0.0524, 0.3339), abs=5e-5)
    means = differences.between(row(0.51, 0.03, 40), row(0.61, 0.04, 40), NO, NO)
    assert means is not None
    assert means.p == pytest.approx(intervals.p_of_mean(0.1, 0.05, 0.05**4 / ((0.03**4 + 0.04**4) / 39)))


def test_without_a_standard_error_there_is_no_p_and_without_a_value_nothing() -> None:
    found = differences.between(row(0.51), row(0.61, 0.1), NO, NO)
    assert found is not None
    assert (found.p, found.interval(LEVEL)) == (None, None)
    assert differences.between(row(None), row(0.5), NO, NO) is None
