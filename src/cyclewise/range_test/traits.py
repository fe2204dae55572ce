"""What of an optimizer matters to a range test: how long it remembers, what it adds up and what it divides by."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Adagrad, Optimizer

from cyclewise.range_test.pace import Pace, pace_of, steady
from cyclewise.stepping import unwrapped

_HIGHEST_MOMENTUM = 0.99


@dataclass(frozen=True)
class Traits:
    """What an optimizer is like; by default like plain gradient descent.

    Attributes:
        memory: steps over which it averages gradients, 1 / (1 - momentum).
        has_momentum: whether it adds gradients up, as SGD's momentum does; Adam's betas average them.
        divides_by_size: whether it divides gradients by their size, as Adam does, or takes their signs alone.
        sums_squares: whether it divides by the root of all squared gradients so far, as Adagrad does.
        pace: the share of its rate that it takes at a step.

    Example:
        >>> Traits().memory, Traits(has_momentum=True).pace(10)
        (1.0, 1.0)
    """

    memory: float = 1.0
    has_momentum: bool = False
    divides_by_size: bool = False
    sums_squares: bool = False
    pace: Pace = steady


def traits_of(optimizer: Optimizer, group: dict[str, Any]) -> Traits:
    """Return what the optimizer is like in one of its parameter groups.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
        >>> traits = traits_of(sgd, sgd.param_groups[0])
        >>> round(traits.memory, 6), traits.has_momentum, traits.divides_by_size
        (10.0, True, False)
    """
    optimizer = unwrapped(optimizer)
    # Some have these and do without: None.
    momentum, betas = float(group.get("momentum") or 0.0), group.get("betas") or (None,)
    averaged = float(betas[0] or 0.0) if "momentum" not in group else momentum
    return Traits(
        memory=1.0 / (1.0 - min(averaged, _HIGHEST_MOMENTUM)),
        has_momentum=momentum > 0.0,
        divides_by_size="betas" in group or "eps" in group,
        sums_squares=isinstance(optimizer, Adagrad),
        pace=pace_of(optimizer, group or None),
    )
