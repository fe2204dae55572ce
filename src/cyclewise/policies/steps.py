"""What a step may be: a whole number of at least 0 of any kind and size, one of them or an array of them."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclewise._validation import shown
from cyclewise.errors import PolicyError
from cyclewise.policies.checks import MOST_STEPS

Steps = Sequence[int] | NDArray[Any]

_MESSAGE = "step must be a whole number of at least 0, got {}; steps count optimizer updates from 0"


def as_step(step: Any) -> int | None:
    """Return one step as an int, None for several, or raise :class:`PolicyError`."""
    if type(step) is not int:
        # A tensor with one element has an index too, but is asked for as an array.
        if getattr(step, "ndim", 0):
            return None
        try:
            step = operator.index(step)
        except TypeError:
            return None
    if step < 0:
        raise PolicyError(_MESSAGE.format(shown(step)))
    return int(step)


def as_one_step(step: Any) -> int:
    """Return one step, a whole number of any kind, as an int, or raise :class:`PolicyError`."""
    index = as_step(step)
    if index is None:
        steps = as_steps(step)
        if steps.ndim:
            raise PolicyError(_MESSAGE.format(shown(step)))
        index = int(steps)
    return index


def as_steps(steps: Any) -> NDArray[np.int64]:
    """Return steps as an int64 array, or raise :class:`PolicyError`; those beyond any policy's end stay beyond it."""
    try:
        array = np.asarray(steps)
    except (TypeError, ValueError, OverflowError):
        raise PolicyError(_MESSAGE.format(shown(steps))) from None
    if array.dtype.kind == "O":
        # Whole numbers that no machine integer holds.
        array = np.array([_far_step(step) for step in array.ravel().tolist()]).reshape(array.shape)
    if array.size == 0:
        return array.astype(np.int64)
    kind = array.dtype.kind
    whole = kind in "iu" or (kind == "f" and bool(np.all(array == np.floor(array))))
    if not whole or array.min() < 0:
        raise PolicyError(_MESSAGE.format(shown(steps)))
    if kind == "i":
        return array.astype(np.int64)
    # In their own kind of number, since infinity and the upper half of uint64 are negative as int64.
    wide = array.astype(np.uint64 if kind == "u" else np.float64)
    return np.minimum(wide, MOST_STEPS).astype(np.int64)


def _far_step(step: Any) -> float:
    """Return a step that may be a whole number of any size as a float; NaN for what is none."""
    try:
        return float(min(operator.index(step), MOST_STEPS))
    except TypeError:
        return step if isinstance(step, float) else math.nan
