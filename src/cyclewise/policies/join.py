"""Policies one after another."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclewise._validation import describe, shown
from cyclewise.errors import PolicyError
from cyclewise.policies import checks
from cyclewise.policies.base import Hyperparameters, Policy, register_policy


@register_policy
@dataclass(frozen=True)
class Join(Policy):
    """Each policy takes over where the one before has made its steps, at its own step 0.

    Args:
        policies: at least one policy; either all of them move the momentum or none does, and so for the weight decay.

    Raises:
        PolicyError: there is no policy, an item is none, they move different hyperparameters, or have more than
            2**53 steps together.

    Example:
        >>> from cyclewise import Cosine, Linear
        >>> policy = Join([Linear(start_lr=0.0, end_lr=0.1, total_steps=3), Cosine(max_lr=0.1, total_steps=3)])
        >>> policy.lr(range(7)), policy.cycle_ends
        (array([0.  , 0.05, 0.1 , 0.1 , 0.05, 0.  , 0.  ]), [3, 6])
    """

    policies: tuple[Policy, ...]

    def __init__(self, policies: Iterable[Policy]) -> None:
        if not isinstance(policies, Iterable):
            raise PolicyError(
                f"policies must be a list of policies, got {describe(policies)}; pass for example [warmup, cosine]"
            )
        parts = tuple(policies)
        if not parts:
            raise PolicyError("policies must hold at least one policy, got none; pass for example [warmup, cosine]")
        for part in parts:
            if not isinstance(part, Policy):
                raise PolicyError(f"policies must hold policies only, got {describe(part)}; make it a Constant")
        for name, which in (("momentum", 1), ("weight decay", 2)):
            moves = [part.at(0)[which] is not None for part in parts]
            if any(moves) and not all(moves):
                raise PolicyError(
                    f"policies must all move the {name} or none of them, got parts that do (True) and don't: {moves}; "
                    "give the others a constant one: what nobody writes depends on where training was resumed"
                )
        total = sum(part.total_steps for part in parts)
        if total > checks.MOST_STEPS:
            raise PolicyError(f"policies must have at most 2**53 steps in all, got {shown(total)}; shorten them")
        object.__setattr__(self, "policies", parts)

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """Steps of all parts together."""
        return self._ends[-1]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(part.total_steps for part in self.policies))

    @property
    def cycle_ends(self) -> list[int]:
        """The step after each cycle of each part."""
        starts = [0, *self._ends[:-1]]
        return [start + end for start, part in zip(starts, self.policies, strict=True) for end in part.cycle_ends]

    def value(self, step: int) -> Hyperparameters:
        """Return the hyperparameters of the part that the step lies in."""
        start = 0
        for part, end in zip(self.policies, self._ends, strict=True):
            if step < end:
                return part.at(step - start)
            start = end
        raise AssertionError("unreachable: steps are clamped to the length")

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        columns: list[Any] = [None, None, None]
        start = 0
        for part, end in zip(self.policies, self._ends, strict=True):
            inside = (steps >= start) & (steps < end)
            for which, values in enumerate(part.values(steps[inside] - start)):
                if values is not None:
                    if columns[which] is None:
                        columns[which] = np.empty(steps.shape, dtype=np.float64)
                    columns[which][inside] = values
            start = end
        return Hyperparameters(*columns)
