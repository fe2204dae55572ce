"""The policies that only go down: exponential, polynomial, in steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cyclewise import _validation
from cyclewise._validation import describe
from cyclewise.errors import PolicyError
from cyclewise.policies import checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy
from cyclewise.policies.elementary import share


@register_policy
@dataclass(frozen=True, kw_only=True)
class Exponential(FormulaPolicy):
    """The same factor at every step, from one rate to another, both reached; a straight line in log rate.

    ``lr(step) = start_lr * (end_lr / start_lr)**(step / (total_steps - 1))``

    Args:
        start_lr: rate at step 0, above 0.
        end_lr: rate at step ``total_steps - 1``, above 0; it may be the higher one, as in a range test.
        total_steps: length in steps; of a single step, the rate is `end_lr`.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> Exponential(start_lr=1.0, end_lr=0.01, total_steps=3).lr([0, 1, 2, 3])
        array([1.  , 0.1 , 0.01, 0.01])
    """

    start_lr: float
    end_lr: float
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_lr", checks.peak("start_lr", self.start_lr))
        object.__setattr__(self, "end_lr", checks.peak("end_lr", self.end_lr))
        if not 1 / checks.HIGHEST_RATE <= self.end_lr / self.start_lr <= checks.HIGHEST_RATE:
            raise PolicyError(
                f"end_lr must be within a factor of 1e300 of start_lr={self.start_lr!r}, got {self.end_lr!r}; "
                "bring them closer together"
            )
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate on the exponential."""
        fraction = share(step, self.total_steps)
        lr = self.start_lr * arithmetic.power(self.end_lr / self.start_lr, fraction)
        return Hyperparameters(arithmetic.where(fraction >= 1.0, self.end_lr, lr))


@register_policy
@dataclass(frozen=True, kw_only=True)
class Polynomial(FormulaPolicy):
    """From `max_lr` down to `min_lr`, both reached, by a power of the share of the steps that is left.

    ``lr(step) = min_lr + (max_lr - min_lr) * (1 - step / (total_steps - 1))**power``

    Args:
        max_lr: rate at step 0, above 0.
        min_lr: rate at step ``total_steps - 1``, between 0 and `max_lr`.
        power: 1 is a straight line, 2 falls fast first; above 0.
        total_steps: length in steps; of a single step, the rate is `min_lr`.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> Polynomial(max_lr=1.0, power=2, total_steps=5).lr([0, 2, 4])
        array([1.  , 0.25, 0.  ])
    """

    max_lr: float
    min_lr: float = 0.0
    power: float = 1.0
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "min_lr", checks.floor("min_lr", self.min_lr, self.max_lr))
        power = _validation.positive("power", self.power, way_out="1 is a straight line", error=PolicyError)
        object.__setattr__(self, "power", power)
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate on the polynomial."""
        left = arithmetic.power(1.0 - share(step, self.total_steps), self.power)
        return Hyperparameters(self.min_lr + (self.max_lr - self.min_lr) * left)


@register_policy
@dataclass(frozen=True, kw_only=True)
class MultiStep(FormulaPolicy):
    """One rate, multiplied by `gamma` at each milestone: step decay.

    ``lr(step) = max_lr * gamma**(number of milestones <= step)``

    Args:
        max_lr: rate before the first milestone, above 0.
        milestones: rising steps of at least 1 at which the rate drops.
        gamma: factor at each, in (0, 1].
        total_steps: length in steps.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> MultiStep(max_lr=1.0, milestones=[2, 4], gamma=0.5, total_steps=6).lr(range(6))
        array([1.  , 1.  , 0.5 , 0.5 , 0.25, 0.25])
    """

    max_lr: float
    milestones: tuple[int, ...]
    gamma: float = 0.1
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        way_out = "they count steps from 0, rising: [100, 150]"
        if not isinstance(self.milestones, Iterable):
            raise PolicyError(f"milestones must be a list of steps, got {describe(self.milestones)}; {way_out}")
        milestones = tuple(checks.whole("milestones", step, way_out) for step in self.milestones)
        if list(milestones) != sorted(set(milestones)):
            raise PolicyError(f"milestones must rise, got {list(milestones)}; sort them and name each once")
        object.__setattr__(self, "milestones", milestones)
        gamma = _validation.fraction("gamma", self.gamma, error=PolicyError)
        if gamma == 0:
            raise PolicyError(f"gamma must be above 0, got {self.gamma!r}; 0.1 is usual")
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate after the milestones passed."""
        drops = arithmetic.count_at_most(list(self.milestones), step)
        return Hyperparameters(self.max_lr * arithmetic.power(self.gamma, drops))
