"""Checks that policies share: :mod:`cyclewise._validation` with a policy's error and a policy's advice."""

from typing import Any

from cyclewise import _validation
from cyclewise.errors import PolicyError

# More steps than any run has; beyond it lengths could not be told apart as floats.
MOST_STEPS = 2**53
# The cycles of SGDR are kept in lists, of some hundred bytes a cycle.
MOST_CYCLES = 1_000_000
# Where the ends of cycles are only listed when asked for, some forty bytes each.
MOST_LISTED_ENDS = 10_000_000
# So far below the largest float that no sum of two rates, and no rounding, gets beyond that.
HIGHEST_RATE = 1e300
_FIND_ONE = "cyclewise.lr_find gives one"


def total_steps(value: Any) -> int:
    """Return a length in steps."""
    return whole("total_steps", value, "it counts optimizer updates: epochs * len(train_loader)")


def whole(name: str, value: Any, way_out: str, *, minimum: int = 1) -> int:
    """Return a whole number of at least `minimum`, and of at most :data:`MOST_STEPS`."""
    number = _validation.whole(name, value, minimum=minimum, way_out=way_out, error=PolicyError)
    if number > MOST_STEPS:
        raise PolicyError(f"{name} must be at most 2**53, got {_validation.shown(value)}; {way_out}")
    return number


def peak(name: str, value: Any) -> float:
    """Return a rate above 0."""
    return _bounded(name, _validation.positive(name, value, way_out=_FIND_ONE, error=PolicyError))


def rate(name: str, value: Any) -> float:
    """Return a rate of at least 0."""
    way_out = "rates cannot be negative"
    return _bounded(name, _validation.non_negative(name, value, way_out=way_out, error=PolicyError))


def floor(name: str, value: Any, max_lr: float) -> float:
    """Return a rate between 0 and `max_lr`."""
    checked = rate(name, value)
    if checked > max_lr:
        raise PolicyError(f"{name} must be at most max_lr={max_lr!r}, got {value!r}; swap them")
    return checked


def factor(name: str, value: Any) -> float:
    """Return a divisor above 0."""
    return _validation.positive(name, value, way_out="it divides the rate: 25 starts at max_lr / 25", error=PolicyError)


def rising(low_name: str, low: Any, high_name: str, high: Any) -> tuple[float, float]:
    """Return two rates of at least 0, the second one above 0 and not below the first."""
    bottom, top = rate(low_name, low), peak(high_name, high)
    if top < bottom:
        raise PolicyError(f"{high_name} must be at least {low_name}={bottom!r}, got {high!r}; swap them")
    return bottom, top


def momenta(base_momentum: Any, max_momentum: Any) -> tuple[float, float] | None:
    """Return both momenta, or None for neither."""
    if base_momentum is None and max_momentum is None:
        return None
    if base_momentum is None or max_momentum is None:
        raise PolicyError(
            "base_momentum and max_momentum must be given together, "
            f"got base_momentum={base_momentum!r} and max_momentum={max_momentum!r}; "
            "pass both, or neither to leave the momentum alone"
        )
    return momentum("base_momentum", base_momentum), momentum("max_momentum", max_momentum)


def momentum(name: str, value: Any) -> float:
    """Return a momentum in [0, 1)."""
    checked = _validation.real(name, value, way_out="0.85 to 0.95 is usual", error=PolicyError)
    if not 0 <= checked < 1:
        raise PolicyError(f"{name} must lie in [0, 1), got {value!r}; 0.85 to 0.95 is usual")
    return checked


def _bounded(name: str, value: float) -> float:
    if value > HIGHEST_RATE:
        raise PolicyError(f"{name} must be at most {HIGHEST_RATE}, got {value!r}; {_FIND_ONE}")
    return value
