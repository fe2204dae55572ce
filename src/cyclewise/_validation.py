"""Checks of arguments, each named once: they return the checked value or raise an error with a way out.

Every message has one shape: ``<argument> must be <what>, got <value>; <way out>``. Numbers come back as plain Python
numbers (a NumPy or 0-d tensor scalar is accepted), so that frozen records compare, hash and serialise by value.
"""

import math
import numbers
import operator
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cyclewise.errors import ArgumentError, ArgumentTypeError, CyclewiseError

Error = type[CyclewiseError]
# torch.manual_seed takes any seed below 2**64; some are counted on from the given one, batch by batch or draw by draw.
_LARGEST_SEED = 2**63 - 1


def real(name: str, value: Any, *, way_out: str, error: Error = ArgumentError) -> float:
    """Return `value` as a finite float."""
    number = _as_float(value)
    if number is None or not math.isfinite(number):
        raise error(f"{name} must be a finite number, got {shown(value)}; {way_out}")
    return number


def positive(name: str, value: Any, *, way_out: str, error: Error = ArgumentError) -> float:
    """Return `value` as a finite float above 0."""
    number = _as_float(value)
    if number is None or not math.isfinite(number) or number <= 0:
        raise error(f"{name} must be a finite number above 0, got {shown(value)}; {way_out}")
    return number


def non_negative(name: str, value: Any, *, way_out: str, error: Error = ArgumentError) -> float:
    """Return `value` as a finite float of at least 0."""
    number = _as_float(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise error(f"{name} must be a finite number of at least 0, got {shown(value)}; {way_out}")
    return number


def fraction(name: str, value: Any, *, error: Error = ArgumentError) -> float:
    """Return `value` as a float in [0, 1]; a number in (1, 100] is told how to become a fraction."""
    number = _as_float(value)
    if number is None or not 0 <= number <= 1:
        percent = f"; for {number:g} % pass {number / 100:g}" if number is not None and 1 < number <= 100 else ""
        raise error(f"{name} must be a fraction in [0, 1], got {shown(value)}{percent or '; for 30 % pass 0.3'}")
    return number


def whole(name: str, value: Any, *, minimum: int, way_out: str, error: Error = ArgumentError) -> int:
    """Return `value` as an int of at least `minimum`; whole floats such as ``1e4`` are accepted."""
    number = _as_int(value)
    if number is None or number < minimum:
        raise error(f"{name} must be a whole number of at least {minimum}, got {shown(value)}; {way_out}")
    return number


def random_seed(name: str, value: Any, *, way_out: str = "pass 0") -> int:
    """Return `value` as an int that every generator can be seeded with."""
    number = whole(name, value, minimum=0, way_out=way_out)
    if number > _LARGEST_SEED:
        raise ArgumentError(
            f"{name} must be a whole number from 0 to 2**63 - 1, got {value!r}; "
            f"pass a smaller one, for example {number % 2**32}"
        )
    return number


def one_of(name: str, value: Any, choices: Collection[str], *, error: Error = ArgumentError) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise error(f"{name} must be one of {listed}, got {value!r}; pass one of these names")
    return value


def instance(name: str, value: Any, kind: type | tuple[type, ...], what: str, *, way_out: str) -> None:
    """Raise :class:`ArgumentTypeError` unless `value` is an instance of `kind`."""
    if not isinstance(value, kind):
        raise ArgumentTypeError(f"{name} must be {what}, got {describe(value)}; {way_out}")


@contextmanager
def reading_record(values: Mapping[str, Any], record: str, version: int) -> Iterator[None]:
    """Raise :class:`ArgumentError` unless `values` are what the ``to_dict`` of this record and version returned.

    Also where the block, which reads them, finds something missing or damaged.
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(f"values must be a dict, got {describe(values)}; pass what to_dict() returned")
    if values.get("record") != record or values.get("version") != version:
        raise ArgumentError(
            f"values must describe a {record} of version {version}, got record={values.get('record')!r}, "
            f"version={values.get('version')!r}; pass what to_dict() returned"
        )
    try:
        yield
    except CyclewiseError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(
            f"values must describe a whole {record}, got some that are missing or damaged "
            f"({type(error).__name__}: {error}); pass what to_dict() returned"
        ) from error


def describe(value: Any) -> str:
    """Return a short text for a value of the wrong kind: its type, and the value itself where that is short."""
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 60 and not text.startswith("<") else f"a {kind}"


def shown(value: Any) -> str:
    """Return a value as text for a message, whatever its size.

    >>> shown(0.5), shown(10**400)
    ('0.5', 'an int of 1329 bits')
    """
    # Beyond some thousand digits Python refuses to print an int at all.
    return f"an int of {value.bit_length()} bits" if isinstance(value, int) and abs(value) >= 10**100 else repr(value)


def _as_float(value: Any) -> float | None:
    if isinstance(value, (bool, str, bytes)):
        return None
    if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) != 0:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _as_int(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        number = _as_float(value)
        return int(number) if number is not None and number.is_integer() else None
