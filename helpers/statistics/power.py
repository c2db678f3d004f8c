"""What a number of samples can show."""

import math

from helpers.statistics.intervals import LEVEL, quantile

POWER = 0.8
# The share of samples on which two models differ, where it was not measured before.
DISCORDANCE = 0.15


def smallest_difference(count: int, discordance: float = DISCORDANCE, power: float = POWER, level: float = LEVEL) -> float | None:
    """The smallest difference between two rates over the same `count` samples that a test finds with this power.

    `discordance`: the share of samples that only one of the two models gets right. None when not even a difference as large as that is
    found. From Connor (1987): n = (z_a·√D + z_b·√(D - d²))² / d².
    """

    def lacking(difference: float) -> float:
        spread = math.sqrt(max(0.0, discordance - difference * difference))
        return quantile(level) * math.sqrt(discordance) + quantile(2 * power - 1) * spread - difference * math.sqrt(count)

    low, high = 0.0, discordance
    if lacking(high) > 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lacking(middle) > 0 else (low, middle)
    return high


def samples_needed(difference: float, discordance: float = DISCORDANCE, power: float = POWER, level: float = LEVEL) -> int:
    """How many samples show such a difference with this power; see smallest_difference. Raises ValueError for a difference of 0."""
    if not difference:
        raise ValueError("no number of samples shows a difference of 0")
    size = min(abs(difference), discordance)
    spread = math.sqrt(max(0.0, discordance - size * size))
    return math.ceil(((quantile(level) * math.sqrt(discordance) + quantile(2 * power - 1) * spread) / size) ** 2)
