"""How much of its rate an optimizer takes by itself at each step: some slow down as they go, some begin slowly.

A sweep of some fifty steps passes a rate at another pace than the run that is to use it.
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Adagrad, Optimizer, RAdam, RMSprop

# RAdam divides by the size of the gradients where their average is longer than so many steps.
_SHORTEST = 5.0

Pace = Callable[[float], float]


def steady(step: float) -> float:
    """Return 1.0: the rate is what is taken, whatever the step."""
    del step
    return 1.0


def pace_of(optimizer: Optimizer, group: dict[str, Any] | None = None) -> Pace:
    """Return the share of its rate that the optimizer takes at its n-th step from now, up to a constant factor.

    Adagrad divides by the root of all squared gradients so far: one over the root of the steps, where those keep their
    size and it began with none (Duchi et al. 2011). RAdam multiplies by the rectification of arXiv:1908.03265,
    algorithm 2, and begins at less than a tenth of its rate. RMSprop divides by the root of an average of squares that
    begins at nothing, and begins at ten times its rate (Adam's correction for that, arXiv:1412.6980, section 3, is what
    it lacks). What has made steps already goes on from there.

    Args:
        optimizer: torch's Adagrad, RAdam or RMSprop, or of a class made from them; all others are steady.
        group: the parameter group that is asked about; None: the first.

    Example:
        >>> import torch
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> pace = pace_of(torch.optim.RAdam([weight]))
        >>> [round(pace(step), 2) for step in (10, 50, 200, 100_000)]
        [0.05, 0.15, 0.31, 1.0]
    """
    group = optimizer.param_groups[0] if group is None else group
    if isinstance(optimizer, Adagrad):
        before, decay = _steps_so_far(optimizer, group), float(group["lr_decay"])
        # Squares that it began with outweigh those to come, for how long nobody knows.
        summed = group["initial_accumulator_value"] == 0
        return lambda step: (before + step if summed else 1.0) ** -0.5 / (1.0 + (before + step - 1.0) * decay)
    if isinstance(optimizer, RAdam):
        before, beta = _steps_so_far(optimizer, group), float(group["betas"][1])
        return lambda step: _rectification(before + step, beta)
    if isinstance(optimizer, RMSprop) and 0.0 < group["alpha"] < 1.0:
        before, alpha = _steps_so_far(optimizer, group), float(group["alpha"])
        return lambda step: (1.0 - alpha ** (before + step)) ** -0.5
    return steady


def _rectification(step: float, beta: float) -> float:
    longest = 2.0 / (1.0 - beta) - 1.0
    if longest <= _SHORTEST:
        return 1.0  # it never divides by the size of the gradients
    length = longest - 2.0 * step * beta**step / (1.0 - beta**step)
    # The first steps are not divided by the size of the gradients at all: as slow as the first that is.
    length = max(length, _SHORTEST)
    return math.sqrt((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length))


def _steps_so_far(optimizer: Optimizer, group: dict[str, Any]) -> float:
    steps = (optimizer.state.get(parameter, {}).get("step", 0.0) for parameter in group["params"])
    return max(map(float, steps), default=0.0)
