"""A policy whose rates are multiplied by a factor from one step on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import checks
from cyclewise.policies.base import Hyperparameters, Policy, highest, register_policy, require_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class Rescaled(Policy):
    """Another policy with its rate multiplied by `factor` from step `at_step` on; momentum and decay stay.

    What a Learner goes on with after it has rolled back from a divergence.

    Args:
        original: the policy.
        factor: what its rates are multiplied by, above 0.
        at_step: the first step that is rescaled.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> from cyclewise import Constant
        >>> Rescaled(original=Constant(lr=0.4, total_steps=4), factor=0.5, at_step=2).lr([0, 1, 2, 3])
        array([0.4, 0.4, 0.2, 0.2])
    """

    original: Policy
    factor: float
    at_step: int

    def __post_init__(self) -> None:
        require_policy("original", self.original)
        factor = _validation.positive("factor", self.factor, way_out="0.5 halves the rates", error=PolicyError)
        at_step = checks.whole("at_step", self.at_step, "0 rescales all", minimum=0)
        top = highest(self.original)[1] if factor > 1 else 0.0
        if top * factor > checks.HIGHEST_RATE:
            raise PolicyError(
                f"factor must leave rates of at most {checks.HIGHEST_RATE}, got {factor!r} for a highest rate of "
                f"{top!r}; 0.5 halves the rates"
            )
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "at_step", at_step)

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """Length in steps: that of `original`."""
        return self.original.total_steps

    @property
    def cycle_ends(self) -> list[int]:
        """The cycles of `original`."""
        return self.original.cycle_ends

    def value(self, step: int) -> Hyperparameters:
        """Return the hyperparameters at one step."""
        lr, momentum, weight_decay = self.original.at(step)
        return Hyperparameters(lr if step < self.at_step else lr * self.factor, momentum, weight_decay)

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        lr, momentum, weight_decay = self.original.values(steps)
        return Hyperparameters(np.where(steps < self.at_step, lr, lr * self.factor), momentum, weight_decay)
