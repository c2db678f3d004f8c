"""The statistics against scipy's own tests, published examples, full enumeration, and simulation."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from helpers.statistics import clustered, intervals, multiple, paired, power

CLOSE = {"abs": 1e-9, "rel": 0}


def tables(number: int = 200) -> list[tuple[int, int, int, int]]:
    """Tables of two models' right and wrong answers: small and large, lopsided and empty."""
    chance = random.Random(13)

    def below() -> int:
        return chance.randrange(chance.choice([2, 10, 100, 3000]))

    edges = [(0, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 7, 0), (5, 3, 3, 5), (0, 4000, 1000, 0)]
    return edges + [(below(), below(), below(), 1) for _ in range(number)]


def test_wilson_equals_scipys_on_generated_rates() -> None:
    for right, *others in tables():
        count = right + sum(others)
        for level in (0.95, 0.8):
            expected = stats.binomtest(right, count).proportion_ci(level, method="wilson")
            assert intervals.wilson(right, count, level)[:2] == pytest.approx(tuple(expected), **CLOSE)


def test_exact_mcnemar_equals_scipys_binomial_test_and_mid_p_is_less_by_half_of_what_was_seen() -> None:
    for _, gained, lost, _ in tables():
        if gained + lost == 0:
            assert paired.mcnemar_exact(gained, lost) == paired.mcnemar_mid_p(gained, lost) == 1
            continue
        assert paired.mcnemar_exact(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, **CLOSE)
        least = min(gained, lost)
        below = 2 * stats.binom.cdf(least, gained + lost, 0.5) - stats.binom.pmf(least, gained + lost, 0.5)
        assert paired.mcnemar_mid_p(gained, lost) == pytest.approx(below, **CLOSE)


def test_mid_p_equals_the_published_examples() -> None:
    """Fagerland, Lydersen and Laake (2013): airway responsiveness of 21 children, and response to therapy of 161 patients."""
    assert paired.mcnemar_mid_p(1, 7) == pytest.approx(0.0391, abs=5e-5)
    assert paired.mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert paired.mcnemar_mid_p(6, 16) == pytest.approx(0.0347, abs=5e-5)
    assert paired.mcnemar_exact(6, 16) == pytest.approx(0.0525, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman and others (2000), table 6.2
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake (2014), airway responsiveness
        ((20, 12, 2, 16), 0.056, 0.329),  # Armitage and Berry (1994), two media
    ],
)
def test_the_paired_interval_equals_published_examples(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired.newcombe(*table)[:2] == pytest.approx((low, high), abs=5e-4)


def test_the_interval_of_separate_samples_equals_the_published_example() -> None:
    """Newcombe (1998), 56 of 70 and 48 of 80."""
    found = intervals.square_and_add((56 / 70, intervals.wilson(56, 70)), (48 / 80, intervals.wilson(48, 80)))
    assert found[:2] == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_paired_interval_turns_with_the_models_and_has_width_when_they_agree() -> None:
    for both, gained, lost, neither in tables(50):
        one, other = paired.newcombe(both, gained, lost, neither), paired.newcombe(both, lost, gained, neither)
        assert one[:2] == pytest.approx((-other.high, -other.low), abs=1e-12)
    same = paired.newcombe(40, 0, 0, 0)
    assert same.low < 0 < same.high


@pytest.mark.parametrize("count", range(1, 13))
def test_up_to_twelve_differences_the_permutation_is_the_full_enumeration(count: int) -> None:
    chance = random.Random(count)
    values = [chance.choice([0.1, -0.2, 0.3, 1.0, -1.0, chance.gauss(0.2, 1)]) for _ in range(count)]
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=count)]
    expected = sum(one >= abs(sum(values)) - 1e-9 for one in sums) / len(sums)
    assert paired.permutation(values) == expected
    assert paired.permutation([*values, *[0.0] * 100]) == expected


def test_a_large_permutation_repeats_and_is_close_to_the_exact_test() -> None:
    values = [1.0] * 30 + [-1.0] * 15 + [0.0] * 100
    found = paired.permutation(values)
    assert found == paired.permutation(values)
    assert found == pytest.approx(paired.mcnemar_exact(30, 15), abs=0.01)
    assert paired.permutation([1.0] * 200) == pytest.approx(1 / 10_001)  # never 0
    assert paired.permutation([]) == paired.permutation([0.0]) == 1


def test_a_mean_has_the_t_interval_of_scipy_and_alone_the_normal_one() -> None:
    values = [0.1, 0.5, 0.45, 0.9, 0.3]
    mean = clustered.mean(values)
    assert (mean.value, mean.stderr) == pytest.approx((np.mean(values), stats.sem(values)))
    expected = stats.ttest_1samp(values, 0)
    found = intervals.of_mean(mean.value, mean.stderr or 0, mean.freedom)
    assert found[:2] == pytest.approx(tuple(expected.confidence_interval()))
    assert intervals.p_of_mean(mean.value, mean.stderr or 0, mean.freedom) == pytest.approx(expected.pvalue)
    assert intervals.of_mean(0, 1)[:2] == pytest.approx((-1.959964, 1.959964), abs=1e-6)
    assert intervals.p_of_mean(1.959964, 1) == pytest.approx(0.05, abs=1e-6)
    assert (intervals.p_of_mean(0, 0), intervals.p_of_mean(0.1, 0)) == (1, 0)


def test_equal_answers_in_a_group_add_nothing() -> None:
    """The standard error of groups of copies is that of the groups."""
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    copies = clustered.mean([value for value in values for _ in range(4)], [group for group in "abcde" for _ in range(4)])
    assert copies == pytest.approx(clustered.mean(values))
    assert clustered.mean([1.0, 0.0], ["a", "a"]) == (0.5, None, 0)
    with pytest.raises(ValueError, match="2 values in 1 groups"):
        clustered.mean([1.0, 0.0], ["a"])


def test_rates_of_separate_samples_have_the_p_of_the_chi_square_test() -> None:
    expected = stats.chi2_contingency([[56, 14], [48, 32]], correction=False).pvalue
    assert intervals.p_of_rates(56, 70, 48, 80) == pytest.approx(expected)
    assert intervals.p_of_rates(70, 70, 80, 80) == 1


def test_holm_raises_p_values_in_their_order() -> None:
    assert multiple.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert multiple.holm([0.6, 0.7]) == [1, 1]
    assert multiple.holm([]) == []


def test_pass_at_k_is_the_share_of_all_choices_of_k_tries_with_a_right_one() -> None:
    for tries, right, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if right > tries or k > tries:
            with pytest.raises(ValueError, match="pass@"):
                multiple.pass_at_k(tries, right, k)
            continue
        choices = list(itertools.combinations([True] * right + [False] * (tries - right), k))
        assert multiple.pass_at_k(tries, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_the_smallest_visible_difference_fits_the_samples_needed() -> None:
    for count, discordance in ((100, 0.15), (1000, 0.15), (1000, 0.4), (14_000, 0.05)):
        found = power.smallest_difference(count, discordance)
        assert found is not None
        assert found < discordance
        assert power.samples_needed(found, discordance) == pytest.approx(count, abs=1)
    assert power.smallest_difference(10, 0.15) is None
    with pytest.raises(ValueError, match="difference of 0"):
        power.samples_needed(0.0)


# ---- Simulations: seeded ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, 100, 1000, 5000])
def test_wilson_covers_95_percent_on_average_over_rates(count: int) -> None:
    """Exact: the probability of every count whose interval holds the rate."""
    rates = np.linspace(0.05, 0.95, 91)
    ends = np.array([intervals.wilson(right, count)[:2] for right in range(count + 1)])
    covered = [stats.binom.pmf(np.arange(count + 1), count, rate)[(ends[:, 0] <= rate) & (rate <= ends[:, 1])].sum() for rate in rates]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("groups", [10, 20, 50])
def test_clustered_intervals_cover_95_percent(groups: int) -> None:
    chance, hits, repeats = np.random.default_rng(groups), 0, 1500
    names = [group for group in range(groups) for _ in range(8)]
    for _ in range(repeats):
        values = np.repeat(chance.normal(0.6, 0.2, groups), 8) + chance.normal(0, 0.2, groups * 8)
        mean = clustered.mean(values.tolist(), names)
        low, high, _ = intervals.of_mean(mean.value, mean.stderr or math.nan, mean.freedom)
        hits += low <= 0.6 <= high
    assert 0.93 <= hits / repeats <= 0.97


@pytest.mark.parametrize("count", [30, 300, 3000])
def test_paired_intervals_cover_95_percent_and_equal_models_differ_in_at_most_5(count: int) -> None:
    chance, covered, alarms, repeats = np.random.default_rng(count), 0, 0, 3000
    for rate in np.linspace(0.05, 0.95, repeats):
        differ = 0.6 * min(rate, 1 - rate)
        both, gained, lost, neither = chance.multinomial(count, [rate - differ / 2, differ / 2, differ / 2, 1 - rate - differ / 2])
        low, high, _ = paired.newcombe(int(both), int(gained), int(lost), int(neither))
        covered += low <= 0 <= high
        alarms += paired.mcnemar_mid_p(int(gained), int(lost)) < 0.05
    assert 0.93 <= covered / repeats <= 0.98  # method 10 is a little wide in small samples
    assert alarms / repeats <= 0.055


def test_the_smallest_visible_difference_is_found_in_80_percent() -> None:
    chance, count, discordance, repeats = np.random.default_rng(5), 800, 0.2, 2000
    size = power.smallest_difference(count, discordance)
    assert size is not None
    gained, lost = (discordance + size) / 2, (discordance - size) / 2
    drawn = chance.multinomial(count, [gained, lost, 1 - discordance], size=repeats)
    found = sum(paired.mcnemar_mid_p(int(row[0]), int(row[1])) < 0.05 for row in drawn)
    assert found / repeats == pytest.approx(0.8, abs=0.03)
