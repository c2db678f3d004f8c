"""The difference between two scores: paired on samples where both runs kept them, otherwise from the scores alone."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from helpers.executors import scores
from helpers.executors.samples import Sample
from helpers.statistics import clustered, intervals, paired, power
from helpers.statistics.intervals import Interval

Series = Mapping[tuple[str, str], Sample]


class Difference(NamedTuple):
    """A difference, one score minus the other.

    `pairs`: how many samples were compared, None where none pair. `discordance`: the share of them on which the two differ, for scores of 0
    and 1; `gained` and `lost` are those that only the one and only the other got right. `interval`: a function of the level.
    """

    value: float
    p: float | None
    method: str
    interval: Callable[[float], Interval | None]
    pairs: int | None = None
    discordance: float | None = None
    gained: tuple[tuple[str, str], ...] = ()
    lost: tuple[tuple[str, str], ...] = ()

    def visible(self) -> float | None:
        """The smallest difference that as many pairs show at 80% power; None where that is not known, or none is shown."""
        return (
            None
            if not self.pairs or self.discordance is None
            else power.smallest_difference(self.pairs, self.discordance or power.DISCORDANCE)
        )


def between(one: Mapping[str, Any], other: Mapping[str, Any], mine: Series, theirs: Series) -> Difference | None:
    """The difference between two rows of results.json with the samples of each, which may be empty. None where a row has no value."""
    if one["value"] is None or other["value"] is None:
        return None
    shared = [key for key in mine if key in theirs]
    if len(shared) < 2:  # noqa: PLR2004
        return _unpaired(one, other)
    pairs = [(mine[key].scores["score"], theirs[key].scores["score"]) for key in shared]
    if all(value in (0, 1) for pair in pairs for value in pair):
        gained, lost = (tuple(key for key, pair in zip(shared, pairs, strict=True) if pair == wanted) for wanted in ((1, 0), (0, 1)))
        both = sum(pair == (1, 1) for pair in pairs)
        table = (both, len(gained), len(lost), len(pairs) - both - len(gained) - len(lost))
        return Difference(
            (len(gained) - len(lost)) / len(pairs),
            paired.mcnemar_mid_p(len(gained), len(lost)),
            "paired: mid-p McNemar, Newcombe",
            lambda level: paired.newcombe(*table, level),
            len(pairs),
            (len(gained) + len(lost)) / len(pairs),
            gained,
            lost,
        )
    changes = [first - second for first, second in pairs]
    mean = clustered.mean(changes)
    return Difference(
        mean.value,
        paired.permutation(changes),
        "paired: permutation, t",
        # Without any spread nothing is known of it: the interval would be a point.
        lambda level: intervals.of_mean(mean.value, mean.stderr, mean.freedom, level) if mean.stderr else None,
        len(pairs),
    )


def _unpaired(one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference:
    value = one["value"] - other["value"]
    if scores.is_rate(one) and scores.is_rate(other):
        right, other_right = (round(row["value"] * row["n"]) for row in (one, other))

        def interval(level: float) -> Interval:
            first, second = intervals.wilson(right, one["n"], level), intervals.wilson(other_right, other["n"], level)
            return intervals.square_and_add((one["value"], first), (other["value"], second))

        p = intervals.p_of_rates(right, one["n"], other_right, other["n"])
        return Difference(value, p, "unpaired: score test, Newcombe", interval)
    variances = [(row["stderr"] or 0) ** 2 for row in (one, other)]
    if not all(variances):
        return Difference(value, None, "unpaired: no standard error", lambda _: None)
    freedom = math.inf
    if all((row["n"] or 0) > 1 for row in (one, other)):  # Welch and Satterthwaite
        freedom = sum(variances) ** 2 / sum(part * part / (row["n"] - 1) for part, row in zip(variances, (one, other), strict=True))
    stderr = math.sqrt(sum(variances))
    return Difference(
        value,
        intervals.p_of_mean(value, stderr, freedom),
        "unpaired: Welch's t",
        lambda level: intervals.of_mean(value, stderr, freedom, level),
    )
