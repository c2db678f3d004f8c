"""The difference between two models that answered the same samples."""

import math
from collections.abc import Sequence

from helpers.statistics import intervals
from helpers.statistics.intervals import LEVEL, Interval

# Up to so many differences all signs are tried; beyond, so many random ones.
EXACT, DRAWS = 12, 10_000
# Signs that are held in memory at a time.
AT_A_TIME = 4_000_000


def mcnemar_exact(gained: int, lost: int) -> float:
    """The p-value of 0/1 scores from the numbers of samples that only the first and only the second model got right."""
    from scipy import special

    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """The same with half the weight on what was seen. The exact test is too careful: it finds less at the same number of samples."""
    from scipy import special

    least, total = min(gained, lost), gained + lost
    if gained == lost:
        return 1.0
    below = float(special.bdtr(least - 1, total, 0.5)) if least else 0.0
    return below + float(special.bdtr(least, total, 0.5))


def newcombe(both: int, gained: int, lost: int, neither: int, level: float = LEVEL) -> Interval:
    """The interval of the difference between two rates over the same samples: method 10 of Newcombe (1998), Statistics in Medicine 17."""
    count = both + gained + lost + neither
    mine, theirs = both + gained, both + lost
    margins = mine * (count - mine) * theirs * (count - theirs)
    excess = both * neither - gained * lost
    phi = (max(excess - count / 2, 0) if excess > 0 else excess) / math.sqrt(margins) if margins else 0.0
    first, second = ((right / count, intervals.wilson(right, count, level)) for right in (mine, theirs))
    return intervals.square_and_add(first, second, phi)


def permutation(differences: Sequence[float], seed: int = 0) -> float:
    """The p-value of a mean difference: how often it is at least as far from 0 when each sample's difference has a random sign.

    Exact for up to 12 differences other than 0, which have no say; otherwise 10,000 draws with the same seed each time.
    """
    import numpy as np

    values = np.asarray([one for one in differences if one], dtype=float)
    count = len(values)
    if not count:
        return 1.0
    least = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # sums in another order differ in the last digit
    if count <= EXACT:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ values) >= least))
    random, reached, left = np.random.default_rng(seed), 0, DRAWS
    while left:
        rows = min(left, max(1, AT_A_TIME // count))
        signs = 1 - 2 * random.integers(0, 2, size=(rows, count), dtype=np.int8)
        reached += int(np.sum(np.abs(signs @ values) >= least))
        left -= rows
    return (1 + reached) / (1 + DRAWS)
