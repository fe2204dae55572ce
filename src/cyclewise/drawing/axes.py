"""Axes as pure functions of numbers: the range to show, where its ticks stand, and how a number is written.

Ticks stand on round values: 1, 2 or 5 times a power of ten. Numbers whose size lies outside [1e-300, 1e300] are left
out of pictures, which keeps every sum here finite; measurements do not get there, overflow does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SMALLEST, LARGEST = 1e-300, 1e300
# A relative span below this is drawn as one value: its tick labels would differ only after the sixth digit.
FLAT = 1e-6
DEFAULT_TICKS = 7
# The least number of ticks to ask for: steps grow by factors of at most 2.5, so that asking for fewer may leave one.
FEWEST_TICKS = 5
_STEP_MANTISSAS = (1, 2, 5)
# (multiples in a decade, decades between ticks), dense to sparse
_LOG_GRIDS = (
    ((1, 2, 5), 1),
    ((1, 3), 1),
    *(((1,), stride) for stride in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200)),
)


@dataclass(frozen=True)
class Ticks:
    """Positions of ticks, in increasing order, and the text of each."""

    positions: tuple[float, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """A range of values and its ticks.

    Args:
        low: the value at the start of the axis.
        high: the value at its end, above `low`.
        log: positions are proportional to the logarithm of the value.
        ticks: where the ticks stand, all in [low, high].
    """

    low: float
    high: float
    log: bool
    ticks: Ticks

    def fraction(self, values: ArrayLike) -> Floats:
        """Return where `values` lie: 0 at `low`, 1 at `high`, outside [0, 1] beyond; NaN where they cannot be drawn.

        >>> fit_axis([0.01, 1.0], log=True).fraction([0.01, 0.1, 1.0, -1.0]).tolist()
        [0.0, 0.5, 1.0, nan]
        """
        numbers = drawable(values, log=self.log)
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return np.asarray((np.log10(numbers) - low) / (high - low))
        # A value may lie further off than a float can tell; infinity is an honest place for it.
        with np.errstate(over="ignore"):
            return np.asarray((numbers - self.low) / (self.high - self.low))


def fit_axis(
    values: ArrayLike,
    *,
    log: bool = False,
    margin: float = 0.0,
    limits: tuple[float, float] | None = None,
    most: int = DEFAULT_TICKS,
) -> Axis:
    """Return the axis that shows `values`.

    Args:
        values: the numbers to show; those that cannot be drawn are left out.
        log: make the axis logarithmic.
        margin: free space at each end as a fraction of the axis; a linear axis does not cross 0 for it.
        limits: the range to show in place of that of `values`; ignored unless two drawable numbers in order.
        most: at most so many ticks, at least 5.

    Returns:
        An axis with ``low < high`` and at least two ticks, whatever the values.

    >>> axis = fit_axis([0.0, 30.0])
    >>> axis.low, axis.high, axis.ticks.labels
    (0.0, 30.0, ('0', '5', '10', '15', '20', '25', '30'))
    >>> fit_axis([1e-5, 1.0], log=True).ticks.labels
    ('1e-5', '1e-4', '0.001', '0.01', '0.1', '1')
    >>> fit_axis([0.1]).ticks.labels
    ('0.06', '0.08', '0.10', '0.12', '0.14')
    """
    given = drawable(np.asarray(limits, dtype=np.float64), log=log) if limits is not None else np.empty(0)
    if given.shape == (2,) and given[0] < given[1]:
        margin = 0.0
    else:
        given = drawable(values, log=log)
    finite = given[np.isfinite(given)]
    find_range = _log_range if log else _linear_range
    low, high = find_range(finite, margin)
    return Axis(low, high, log, log_ticks(low, high, most) if log else linear_ticks(low, high, most))


def drawable(values: ArrayLike, *, log: bool = False) -> Floats:
    """Return `values` as float64, with NaN in place of what an axis cannot show.

    >>> drawable([1, float("inf"), -2.0]).tolist()
    [1.0, nan, -2.0]
    >>> drawable([1, 0, -2.0], log=True).tolist()
    [1.0, nan, nan]
    """
    numbers = np.asarray(values, dtype=np.float64)
    shown = np.abs(numbers) <= LARGEST
    if log:
        shown &= numbers >= SMALLEST
    return np.where(shown, numbers, np.nan)


def linear_ticks(low: float, high: float, most: int = DEFAULT_TICKS) -> Ticks:
    """Return ticks at multiples of the smallest round step that gives at most `most` of them.

    >>> linear_ticks(0, 1).labels
    ('0.0', '0.2', '0.4', '0.6', '0.8', '1.0')
    >>> linear_ticks(0, 4e-6).labels
    ('0', '1e-6', '2e-6', '3e-6', '4e-6')
    """
    exponent = math.floor(math.log10((high - low) / most))
    while True:
        for mantissa in _STEP_MANTISSAS:
            step = mantissa * float(f"1e{exponent}")
            # A part in a billion of a step: a bound that is a multiple of the step counts, whatever its last bit.
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < most:
                positions = [_multiple(count * mantissa, exponent) for count in range(first, last + 1)]
                labels = tuple(_linear_label(position, positions, exponent) for position in positions)
                return Ticks(tuple(min(max(position, low), high) for position in positions), labels)
        exponent += 1


def log_ticks(low: float, high: float, most: int = DEFAULT_TICKS) -> Ticks:
    """Return ticks at powers of ten or simple multiples of them; linear ones where the range is too short for that.

    >>> log_ticks(0.01, 1.0).labels
    ('0.01', '0.02', '0.05', '0.1', '0.2', '0.5', '1')
    >>> log_ticks(1e-9, 10.0).labels
    ('1e-8', '1e-6', '1e-4', '0.01', '1')
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    ticks: list[float] = []
    for multiples, stride in _LOG_GRIDS:
        powers = range(first - first % stride, last + 1, stride)
        ticks = [
            tick for power in powers for multiple in multiples if low <= (tick := _multiple(multiple, power)) <= high
        ]
        if len(ticks) <= most:
            break
    if len(ticks) < 3:
        return linear_ticks(low, high, most)
    return Ticks(tuple(ticks), tuple(number(tick) for tick in ticks))


def number(value: float, digits: int = 4) -> str:
    """Return `value` as people write it, with at most `digits` significant digits; whole numbers below 1e6 in full.

    >>> [number(value) for value in (0, 0.42, 0.0001, 1234.5678, 20_000, 3e8, float("nan"))]
    ['0', '0.42', '1e-4', '1,235', '20,000', '3e8', 'not finite']
    """
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return _scientific(value, digits - 1)
    if float(value).is_integer():
        return f"{int(value):,}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _linear_range(finite: Floats, margin: float) -> tuple[float, float]:
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    size = max(abs(low), abs(high))
    if size < SMALLEST:
        return 0.0, 1.0
    if high - low <= FLAT * size:
        return max(low - size / 2, -LARGEST), min(high + size / 2, LARGEST)
    space = margin * (high - low)
    return (
        max(low - space, 0.0 if low >= 0 else -LARGEST),
        min(high + space, 0.0 if high <= 0 else LARGEST),
    )


def _log_range(finite: Floats, margin: float) -> tuple[float, float]:
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.1, 1.0)
    if high <= low * (1 + FLAT):
        factor = 2.0
    else:
        factor = 10 ** (margin * (math.log10(high) - math.log10(low)))
    return max(low / factor, SMALLEST), min(high * factor, LARGEST)


def _multiple(multiple: int, power: int) -> float:
    # By way of text: the float nearest to the decimal number, as a reader would type it.
    return float(f"{multiple}e{power}")


def _linear_label(position: float, positions: Sequence[float], exponent: int) -> str:
    size = max(abs(positions[0]), abs(positions[-1]))
    if 1e-3 <= size < 1e6:
        return f"{position:,.{max(0, -exponent)}f}"
    if position == 0:
        return "0"
    return _scientific(position, max(0, math.floor(math.log10(abs(position))) - exponent))


def _scientific(value: float, decimals: int) -> str:
    mantissa, _, exponent = f"{value:.{decimals}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"
