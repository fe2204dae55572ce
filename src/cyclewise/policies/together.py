"""Rate, momentum and weight decay each by a policy of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cyclewise.errors import PolicyError
from cyclewise.policies.base import Hyperparameters, Policy, highest, register_policy, require_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class Together(Policy):
    """Move the rate by one policy, and the momentum or the weight decay by the values of others.

    Any policy is a schedule of numbers: ``policy.lr(step)`` is its value, whatever it stands for.

    Args:
        rate: the policy of the learning rate; it decides the length.
        momenta: a policy whose values are momenta (Adam's beta1); None leaves those of `rate`, if any.
        decays: a policy whose values are weight decays; None leaves those of `rate`, if any.

    Raises:
        PolicyError: an argument is no policy, or a policy's length differs from that of `rate`.

    Example:
        >>> from cyclewise import Cosine, Linear
        >>> policy = Together(
        ...     rate=Cosine(max_lr=0.1, total_steps=3), decays=Linear(start_lr=0.0, end_lr=0.02, total_steps=3)
        ... )
        >>> policy.lr(1), policy.weight_decay([0, 1, 2]), policy.momentum(0)
        (0.05, array([0.  , 0.01, 0.02]), None)
    """

    rate: Policy
    momenta: Policy | None = None
    decays: Policy | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "momenta", "decays"):
            part = getattr(self, name)
            if part is None and name != "rate":
                continue
            require_policy(name, part)
            if part.total_steps != self.rate.total_steps:
                raise PolicyError(
                    f"{name} must have as many steps as rate, got {part.total_steps} and {self.rate.total_steps}; "
                    "make it longer with extend(), or with Join"
                )
        if self.momenta is not None and (top := highest(self.momenta)[1]) >= 1:
            raise PolicyError(f"momenta must stay below 1, got a policy that reaches {top:.4g}; lower it")

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """Length in steps: that of `rate`."""
        return self.rate.total_steps

    @property
    def cycle_ends(self) -> list[int]:
        """The cycles of `rate`."""
        return self.rate.cycle_ends

    def value(self, step: int) -> Hyperparameters:
        """Return the three values at one step."""
        lr, momentum, weight_decay = self.rate.at(step)
        return Hyperparameters(
            lr,
            momentum if self.momenta is None else self.momenta.at(step).lr,
            weight_decay if self.decays is None else self.decays.at(step).lr,
        )

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        lr, momentum, weight_decay = self.rate.values(steps)
        return Hyperparameters(
            lr,
            momentum if self.momenta is None else self.momenta.lr(steps),
            weight_decay if self.decays is None else self.decays.lr(steps),
        )
