"""Intervals of a score and of the difference between two, and the p-value of the latter. Everything is two-sided, at 95% unless said."""

import math
from statistics import NormalDist
from typing import NamedTuple

LEVEL = 0.95


class Interval(NamedTuple):
    """The two ends of an interval, and how it was made: `wilson`, `t`, `newcombe` and so on."""

    low: float
    high: float
    method: str


def quantile(level: float = LEVEL, freedom: float = math.inf) -> float:
    """How many standard errors a two-sided interval reaches to each side: of Student's t with `freedom` degrees, normal without."""
    tail = (1 + level) / 2
    if math.isinf(freedom):
        return NormalDist().inv_cdf(tail)
    from scipy import special  # takes half a second to import, and rates do not need it

    return float(special.stdtrit(freedom, tail))


def wilson(right: float, count: int, level: float = LEVEL) -> Interval:
    """The interval of a rate, `right` of `count`: inside 0 and 1, and with some width even when all are right."""
    z, rate = quantile(level), right / count
    scale = 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return Interval(0.0 if right == 0 else centre - half, 1.0 if right == count else centre + half, "wilson")


def of_mean(mean: float, stderr: float, freedom: float = math.inf, level: float = LEVEL) -> Interval:
    """The interval of a mean from its standard error; `freedom`: n - 1, or the number of clusters - 1; without it the normal one."""
    half = quantile(level, freedom) * stderr
    return Interval(mean - half, mean + half, "normal" if math.isinf(freedom) else "t")


def p_of_mean(mean: float, stderr: float, freedom: float = math.inf) -> float:
    """The probability of a mean at least so far from 0 if the true one is 0."""
    if stderr == 0:
        return 1.0 if mean == 0 else 0.0
    far = abs(mean) / stderr
    if math.isinf(freedom):
        return math.erfc(far / math.sqrt(2))
    from scipy import special

    return 2 * float(special.stdtr(freedom, -far))


def square_and_add(first: tuple[float, Interval], second: tuple[float, Interval], phi: float = 0.0) -> Interval:
    """Newcombe's interval of `first` - `second`, each a value with its interval; `phi`: their correlation, 0 for separate samples."""
    (one, mine), (other, theirs) = first, second
    down, up = one - mine.low, mine.high - one
    other_down, other_up = other - theirs.low, theirs.high - other
    below = math.sqrt(max(0.0, down * down - 2 * phi * down * other_up + other_up * other_up))
    above = math.sqrt(max(0.0, up * up - 2 * phi * up * other_down + other_down * other_down))
    return Interval(max(-1.0, one - other - below), min(1.0, one - other + above), "newcombe")


def p_of_rates(right: float, count: int, other_right: float, other_count: int) -> float:
    """The p-value of a difference between two rates of separate samples (the score test with the rates pooled)."""
    pooled = (right + other_right) / (count + other_count)
    stderr = math.sqrt(pooled * (1 - pooled) * (1 / count + 1 / other_count))
    return p_of_mean(right / count - other_right / other_count, stderr)
