"""Several at once: several tests of one question, several tries at one sample."""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, each raised so that some false alarm among all is as rare as a single test's (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda one: p_values[one])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, one in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[one]))
        adjusted[one] = highest
    return adjusted


def pass_at_k(tries: int, right: int, k: int) -> float:
    """The probability that at least one of `k` tries at a sample is right, from `right` of `tries` (unbiased: Chen et al. 2021).

    Raises ValueError unless 1 <= k <= tries and 0 <= right <= tries.
    """
    if not (1 <= k <= tries and 0 <= right <= tries):
        raise ValueError(f"pass@{k} of {right} right in {tries} tries")
    return 1 - math.comb(tries - right, k) / math.comb(tries, k)
