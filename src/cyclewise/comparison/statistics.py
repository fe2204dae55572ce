"""Paired differences, one per seed: test, interval, correction, and how many seeds a verdict needs. Pure functions.

The test asks: if the two policies were the same, each seed's difference would be as likely with the other sign; how
many of the 2^n ways to put the signs give a mean as far from 0 as the one observed? It assumes no distribution, and n
seeds cannot give a p-value below 2/2^n.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from cyclewise._validation import fraction, whole
from cyclewise.errors import ArgumentError

# Up to so many differences all signs are tried: 2^20 sums are a few milliseconds and 8 MB.
_MOST_EXACT = 20
_NUM_DRAWS = 100_000
# Sums that differ by no more than rounding count as equal: that of adding up, and that of the values themselves, which
# are means of float32 numbers (0.8704 - 0.8628 and 0.8605 - 0.8529 are one difference, but not in their last digits).
_ADDING = 1e-12
_FLOAT32 = 2.0**-23


def sign_flip_p_value(differences: Sequence[float], *, rounding: float = 0.0, seed: int = 0) -> float:
    """Return the two-sided p-value of the mean of paired differences.

    Args:
        differences: finite numbers, one per seed.
        rounding: by how much their sum may be off; sums that are no farther apart count as equal.
        seed: draws the signs where there are more than 20 differences; up to 20 all signs are tried.

    Raises:
        ArgumentError: there is none, or one is not finite.

    Source: Fisher's randomization test, The Design of Experiments, section 21.

    >>> sign_flip_p_value([1.0, 2.0, 3.0]), sign_flip_p_value([1.0, -1.0]), sign_flip_p_value([0.0])
    (0.25, 1.0, 1.0)
    """
    values = _checked(differences)
    observed = abs(math.fsum(values))
    slack = rounding + _ADDING * math.fsum(abs(value) for value in values)
    if len(values) > _MOST_EXACT:
        signs = np.random.default_rng(seed).integers(0, 2, (_NUM_DRAWS, len(values)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ np.array(values)
        return (1 + int(np.count_nonzero(np.abs(sums) >= observed - slack))) / (1 + _NUM_DRAWS)
    # By symmetry the first sign can stay: the other half of the sums are these with the sign turned.
    sums = np.array([values[0]])
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.count_nonzero(np.abs(sums) >= observed - slack) / len(sums))


def paired_p_value(values: Sequence[float], others: Sequence[float], *, seed: int = 0) -> float:
    """Return the p-value of :func:`sign_flip_p_value` for the differences of values that were computed in float32.

    Args:
        values: one per seed, finite.
        others: those of the same seeds.
        seed: as there.

    Raises:
        ArgumentError: there is none, or a difference is not finite.

    >>> import numpy as np
    >>> own, other = np.float32([0.8704, 0.8605, 0.8701]).tolist(), np.float32([0.8628, 0.8529, 0.8777]).tolist()
    >>> paired_p_value(own, other), sign_flip_p_value([a - b for a, b in zip(own, other)])
    (1.0, 0.75)
    """
    differences = [own - other for own, other in zip(values, others, strict=True)]
    rounding = _FLOAT32 * math.fsum(abs(value) for value in (*values, *others))
    return sign_flip_p_value(differences, rounding=rounding, seed=seed)


def smallest_p_value(num_seeds: int) -> float:
    """Return the smallest two-sided p-value that so many paired seeds can give.

    >>> smallest_p_value(5), smallest_p_value(1)
    (0.0625, 1.0)
    """
    return 2.0 ** (1 - whole("num_seeds", num_seeds, minimum=1, way_out="a policy needs at least one run"))


def seeds_for_verdict(num_comparisons: int = 1, *, alpha: float = 0.05) -> int:
    """Return the fewest seeds whose smallest p-value, times the number of comparisons, is at most `alpha`.

    >>> seeds_for_verdict(), seeds_for_verdict(2), seeds_for_verdict(9)
    (6, 7, 9)
    """
    count = whole("num_comparisons", num_comparisons, minimum=1, way_out="count the policies besides the baseline")
    if fraction("alpha", alpha) == 0.0:
        raise ArgumentError("alpha must be above 0, got 0; 0.05 is usual")
    seeds = 1
    while count * smallest_p_value(seeds) > alpha:
        seeds += 1
    return seeds


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: rejecting those at most alpha errs at all with at most alpha.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; None for the error of a single value.

    >>> mean_and_error([1.0, 3.0]), mean_and_error([1.0])
    ((2.0, 1.0), (1.0, None))
    """
    mean = statistics.fmean(_checked(values))
    return mean, statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def t_interval(differences: Sequence[float], *, level: float = 0.95) -> tuple[float, float] | None:
    """Return Student's interval for the mean difference; None for a single difference, which shows no spread.

    It assumes differences that are about normal, which the test of :func:`sign_flip_p_value` does not.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    mean, error = mean_and_error(differences)
    if error is None:
        return None
    reach = t_quantile((1.0 + level) / 2.0, len(differences) - 1) * error
    return mean - reach, mean + reach


def t_quantile(probability: float, degrees: int) -> float:
    """Return the point that Student's t stays below with this probability, at least one half.

    >>> round(t_quantile(0.975, 7), 4)
    2.3646
    """
    low, high = 0.0, 1.0
    while _t_below(high, degrees) < probability:
        low, high = high, 2.0 * high
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return middle
        low, high = (middle, high) if _t_below(middle, degrees) < probability else (low, middle)


def _t_below(t: float, degrees: int) -> float:
    # Abramowitz and Stegun 26.7.3 and 26.7.4: closed forms for whole degrees of freedom.
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    first = 1 if degrees % 2 == 0 else 2
    term = 1.0 if degrees % 2 == 0 else cosine
    total = 0.0
    for power in range(first, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    within = sine * total if degrees % 2 == 0 else 2.0 / math.pi * (angle + sine * total)
    return 0.5 + within / 2.0


def _checked(values: Sequence[float]) -> list[float]:
    if not len(values) or not all(math.isfinite(value) for value in values):
        raise ArgumentError(
            f"differences must be finite numbers, at least one, got {list(values)!r}; leave out what diverged"
        )
    return [float(value) for value in values]
