"""A policy that goes on with a new number of steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclewise.errors import PolicyError
from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import ARRAY, SCALAR, Arithmetic
from cyclewise.policies.base import Hyperparameters, Policy, register_policy, require_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class Extended(Policy):
    """Another policy, stretched or squeezed from `at_step` on to end after `total_steps`; made by ``policy.extend``.

    Steps up to `at_step` keep their values. After it, step s has the old value at the position
    ``at_step + (s - at_step) * (old_last - at_step) / (new_last - at_step)``. Between whole positions lies a straight
    line, except across the end of a cycle, where the value before it is held, so that restarts stay sharp. Where
    `at_step` is beyond the old end, the old last value is held.

    Args:
        original: the policy to go on with.
        total_steps: the new length in steps, counted from 0; above `at_step`.
        at_step: the step of the joint.

    Raises:
        PolicyError: an argument has an impossible value.

    Example:
        >>> from cyclewise import Linear
        >>> policy = Linear(start_lr=1.0, end_lr=0.0, total_steps=5).extend(total_steps=8, at_step=3)
        >>> policy.lr([0, 3, 5, 7]), policy.lr(4)
        (array([1.   , 0.25 , 0.125, 0.   ]), 0.1875)
    """

    original: Policy
    total_steps: int
    at_step: int

    def __post_init__(self) -> None:
        require_policy("original", self.original)
        at_step = checks.whole("at_step", self.at_step, "pass the step that training has reached", minimum=0)
        total_steps = checks.total_steps(self.total_steps)
        if total_steps <= at_step:
            raise PolicyError(
                f"total_steps must lie beyond at_step={at_step}, got {total_steps}; "
                "it counts from step 0, not from the joint"
            )
        object.__setattr__(self, "total_steps", total_steps)
        object.__setattr__(self, "at_step", at_step)

    @property
    def cycle_ends(self) -> list[int]:
        """The step after each cycle, moved with the stretch; those squeezed into one step count as one."""
        kept = [end for end in self.original.cycle_ends if end <= self.at_step]
        moved = []
        for end in self.original.cycle_ends[len(kept) : -1]:
            # The first step whose position is at least `end`.
            moved.append(self.at_step - (-(end - self.at_step) * self._new_span // max(1, self._old_span)))
        return sorted({*kept, *moved, self.total_steps})

    def value(self, step: int) -> Hyperparameters:
        """Return the hyperparameters at the stretched position of the step."""
        lower, upper, fraction = self._position(step, SCALAR)
        return _between(self.original.at(lower), self.original.at(upper), fraction, SCALAR)

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        lower, upper, fraction = self._position(steps, ARRAY)
        return _between(self.original.values(lower), self.original.values(upper), fraction, ARRAY)

    @property
    def _old_span(self) -> int:
        return max(0, self.original.total_steps - 1 - self.at_step)

    @property
    def _new_span(self) -> int:
        return max(1, self.total_steps - 1 - self.at_step)

    def _position(self, step: Any, arithmetic: Arithmetic) -> tuple[Any, Any, Any]:
        # In whole numbers, so that a position that is whole is found to be whole.
        after = step - self.at_step
        whole, rest = arithmetic.scale(after, self._old_span, self._new_span)
        lower = arithmetic.where(after <= 0, step, self.at_step + whole)
        rest = arithmetic.where(after <= 0, 0, rest)
        rest = arithmetic.where(arithmetic.is_in(lower + 1, self.original.cycle_ends), 0, rest)
        return lower, arithmetic.where(rest == 0, lower, lower + 1), rest / self._new_span


def _between(lower: Hyperparameters, upper: Hyperparameters, fraction: Any, arithmetic: Arithmetic) -> Hyperparameters:
    return Hyperparameters(
        *(None if a is None else anneal.linear(a, b, fraction, arithmetic) for a, b in zip(lower, upper, strict=True))
    )
