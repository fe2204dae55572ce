"""The policies with one shape: constant, linear, cosine."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy
from cyclewise.policies.steps import as_step, as_steps


class _Rate(float):
    """A number that is also its own schedule, so that `policy.lr` is the argument and `policy.lr(step)` the value."""

    __slots__ = ()

    def __call__(self, step: Any) -> Any:
        return np.full(as_steps(step).shape, float(self)) if as_step(step) is None else float(self)


@register_policy
@dataclass(frozen=True, kw_only=True)
class Constant(FormulaPolicy):
    """One rate throughout.

    Args:
        lr: the rate, at least 0.
        total_steps: length in steps.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> policy = Constant(lr=0.1, total_steps=3)
        >>> policy.lr(99), policy.lr([0, 2])
        (0.1, array([0.1, 0.1]))
    """

    lr: Any = field()
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", _Rate(checks.rate("lr", self.lr)))
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate, whatever the step."""
        return Hyperparameters(self.lr(step))


@register_policy
@dataclass(frozen=True, kw_only=True)
class Linear(FormulaPolicy):
    """A straight line from one rate to another, both reached; up for a warm-up, down for a decay.

    ``lr(step) = start_lr + (end_lr - start_lr) * step / (total_steps - 1)``

    Args:
        start_lr: rate at step 0, at least 0.
        end_lr: rate at step ``total_steps - 1``, at least 0.
        total_steps: length in steps; of a single step, the rate is `end_lr`.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> Linear(start_lr=0.0, end_lr=0.1, total_steps=5).lr([0, 2, 4, 5])
        array([0.  , 0.05, 0.1 , 0.1 ])
    """

    start_lr: float
    end_lr: float
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_lr", checks.rate("start_lr", self.start_lr))
        object.__setattr__(self, "end_lr", checks.rate("end_lr", self.end_lr))
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate on the line."""
        return Hyperparameters(anneal.linear(self.start_lr, self.end_lr, share(step, self.total_steps), arithmetic))


@register_policy
@dataclass(frozen=True, kw_only=True)
class Cosine(FormulaPolicy):
    """Half a cosine down from `max_lr` to `min_lr`, both reached, without restarts.

    ``lr(step) = min_lr + (max_lr - min_lr) / 2 * (1 + cos(pi * step / (total_steps - 1)))``

    Args:
        max_lr: rate at step 0, above 0.
        min_lr: rate at step ``total_steps - 1``, between 0 and `max_lr`.
        total_steps: length in steps; of a single step, the rate is `min_lr`.

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Loshchilov and Hutter, arXiv:1608.03983, equation 5, without its restarts.

    Example:
        >>> Cosine(max_lr=0.1, total_steps=5).lr([0, 2, 4, 5])
        array([0.1 , 0.05, 0.  , 0.  ])
    """

    max_lr: float
    min_lr: float = 0.0
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "min_lr", checks.floor("min_lr", self.min_lr, self.max_lr))
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate on the cosine."""
        return Hyperparameters(anneal.cosine(self.max_lr, self.min_lr, share(step, self.total_steps), arithmetic))


def share(step: Any, total_steps: int) -> Any:
    """Return how much of the way is done at `step`, 1 at the last of `total_steps`; a single step is the end."""
    return step / (total_steps - 1) if total_steps > 1 else step * 0.0 + 1.0
