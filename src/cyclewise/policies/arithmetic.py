"""The same arithmetic for one step and for many, so that a formula is written once and gives the same bits both ways.

A formula takes its step (an int, or an int64 array) and one of :data:`SCALAR` and :data:`ARRAY`, and does everything
that differs between the two through it. Addition, subtraction, multiplication and division are IEEE operations and
agree by themselves; cosines and powers are the functions of the C library, on arrays too.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np


class Arithmetic(Protocol):
    """What a formula may do with its step."""

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """Choose element by element; both sides are evaluated."""

    def cos(self, angle: Any) -> Any:
        """Cosine of an angle in radians."""

    def power(self, base: Any, exponent: Any) -> Any:
        """`base` to an `exponent`; either may be an array."""

    def sqrt(self, value: Any) -> Any:
        """Square root, correctly rounded."""

    def pick(self, values: list[Any], index: Any) -> Any:
        """The values at an index."""

    def count_at_most(self, bounds: list[int], step: Any) -> Any:
        """How many of the rising `bounds` are at most `step`."""

    def is_in(self, step: Any, members: list[int]) -> Any:
        """Whether `step` is one of `members`."""

    def scale(self, step: Any, numerator: int, denominator: int) -> tuple[Any, Any]:
        """``step * numerator / denominator`` in whole numbers: quotient and remainder."""


class _Scalar:
    cos = staticmethod(math.cos)
    sqrt = staticmethod(math.sqrt)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no

    def power(self, base: Any, exponent: Any) -> Any:
        return base**exponent

    def pick(self, values: list[Any], index: Any) -> Any:
        return values[index]

    def count_at_most(self, bounds: list[int], step: Any) -> Any:
        return bisect_right(bounds, step)

    def is_in(self, step: Any, members: list[int]) -> Any:
        i = bisect_right(members, step)
        return i > 0 and members[i - 1] == step

    def scale(self, step: Any, numerator: int, denominator: int) -> tuple[Any, Any]:
        return step * numerator // denominator, step * numerator % denominator


class _Array:
    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, yes, no)

    def cos(self, angle: Any) -> Any:
        if _numpy_has_the_cosine_of_the_c_library():
            return np.cos(angle)
        return np.fromiter(map(math.cos, angle.ravel().tolist()), np.float64, angle.size).reshape(angle.shape)

    def sqrt(self, value: Any) -> Any:
        return np.sqrt(value)

    def power(self, base: Any, exponent: Any) -> Any:
        # NumPy's vector power differs from the C library's in the last bit; values repeat, so few are computed.
        if isinstance(base, np.ndarray):
            return _each(lambda value: value**exponent, base)
        return _each(lambda value: base**value, exponent)

    def pick(self, values: list[Any], index: Any) -> Any:
        return np.array(values)[index]

    def count_at_most(self, bounds: list[int], step: Any) -> Any:
        return np.searchsorted(np.array(bounds, dtype=np.int64), step, side="right")

    def is_in(self, step: Any, members: list[int]) -> Any:
        return np.isin(step, members)

    def scale(self, step: Any, numerator: int, denominator: int) -> tuple[Any, Any]:
        largest = int(np.abs(step).max(initial=0))
        # As Python's own integers where the product does not fit into 64 bits.
        exact = step if largest * numerator < 2**63 else step.astype(object)
        quotient, remainder = exact * numerator // denominator, exact * numerator % denominator
        return quotient.astype(np.int64), remainder.astype(np.int64)


def _each(function: Callable[[Any], Any], values: Any) -> Any:
    unique, inverse = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in unique.tolist()], dtype=np.float64)[inverse].reshape(values.shape)


@lru_cache(maxsize=1)
def _numpy_has_the_cosine_of_the_c_library() -> bool:
    # NumPy may be built with vector cosines that differ in the last bit; whether it is can only be seen by looking.
    angles = np.linspace(0.0, math.pi, 4097)
    return bool(np.cos(angles).tolist() == [math.cos(angle) for angle in angles.tolist()])


SCALAR: Arithmetic = _Scalar()
ARRAY: Arithmetic = _Array()
