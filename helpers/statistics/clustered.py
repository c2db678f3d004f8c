"""Means of samples that come in groups (a passage and its questions, a template and its variants), which are right or wrong together."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Mean(NamedTuple):
    """A mean with its standard error, None with fewer than two groups, and the degrees of freedom of its t interval."""

    value: float
    stderr: float | None
    freedom: int


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Mean:
    """The mean of some values; `groups` says for each which group it belongs to, None that each stands alone.

    The degrees of freedom are the groups - 1. A percentile bootstrap of ten groups covers 92%, t covers 95%. Raises ValueError when there
    are no values, or `groups` has another length.
    """
    count, total = len(values), math.fsum(values)
    average = total / count if count else math.nan
    if not count or (groups is not None and len(groups) != count):
        raise ValueError(f"{count} values in {'no' if groups is None else len(groups)} groups")
    sums: dict[Hashable, float] = defaultdict(float)
    for number, value in enumerate(values):
        sums[number if groups is None else groups[number]] += value - average
    number_of_groups = len(sums)
    if number_of_groups < 2:  # noqa: PLR2004
        return Mean(average, None, 0)
    variance = number_of_groups / (number_of_groups - 1) * math.fsum(one * one for one in sums.values())
    return Mean(average, math.sqrt(variance) / count, number_of_groups - 1)
