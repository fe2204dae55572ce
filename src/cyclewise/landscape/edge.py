"""Where the edge of stability lies: the largest curvature on which an optimizer, at its present rate, does not diverge.

On a quadratic with the largest eigenvalue s, an update in the form ``v <- m*v + g; w <- w - lr*v`` diverges where

    s > 2 * (1 + m) / lr                    heavy ball; gradient descent with m = 0
    s > 2 * (1 + m) / ((1 + 2*m) * lr)      Nesterov's
    s > 2 * (1 + m) / ((1 - m) * lr)        with an averaged gradient, v <- m*v + (1-m)*g, as Adam's

(Cohen et al., arXiv:2103.00065, section 2 and appendix B; for Adam arXiv:2207.14484, section 2). For Adam and RMSprop s
is the largest eigenvalue of the Hessian preconditioned by their second moments P, ``P^-1/2 H P^-1/2``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cyclewise.param_groups import read_rates
from cyclewise.velocity import VelocitySGD

_ADAM = (torch.optim.Adam, torch.optim.AdamW)


def sharpness_limit(optimizer: Optimizer) -> float:
    """Return the largest stable eigenvalue at the present hyperparameters of the fastest group; NaN if none is known.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> sharpness_limit(torch.optim.SGD([weight], lr=0.1)), sharpness_limit(torch.optim.Adagrad([weight]))
        (20.0, nan)
    """
    group = max(optimizer.param_groups, key=lambda group: float(group["lr"]))
    lr = float(group["lr"])
    if lr <= 0.0 or group.get("maximize"):
        return math.nan
    if isinstance(optimizer, (torch.optim.SGD, VelocitySGD)):
        momentum = float(group["momentum"])
        widens = 1.0 + 2.0 * momentum if group["nesterov"] else 1.0
        kept = 1.0 - float(group.get("dampening", 0.0)) if momentum else 1.0
        return 2.0 * (1.0 + momentum) / (widens * kept * lr) - float(group["weight_decay"]) if kept > 0.0 else math.nan
    if type(optimizer) in _ADAM:
        beta = float(group["betas"][0])
        return 2.0 * (1.0 + beta) / ((1.0 - beta) * lr) if beta < 1.0 else math.nan
    if type(optimizer) is torch.optim.RMSprop and not group["centered"]:
        return 2.0 * (1.0 + float(group["momentum"])) / lr
    return math.nan


def root(optimizer: Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """Return what the Hessian is scaled by on both sides for this optimizer, per parameter; None for nothing.

    It holds P^-1/2, the square root of each group's share of the fastest rate, and 0 for what the optimizer does not
    move.
    """
    fastest = max(read_rates(optimizer))
    owner = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    is_preconditioned = type(optimizer) in (*_ADAM, torch.optim.RMSprop)
    if not is_preconditioned and all(id(p) in owner and float(owner[id(p)]["lr"]) == fastest for p in parameters):
        return None
    roots = []
    for parameter in parameters:
        group = owner.get(id(parameter))
        share = math.sqrt(float(group["lr"]) / fastest) if group is not None and fastest > 0.0 else 0.0
        scale = torch.full_like(parameter, share, requires_grad=False)
        state = optimizer.state.get(parameter)
        if is_preconditioned and group is not None and state:
            scale /= _second_moment_root(state, group).sqrt()
        roots.append(scale)
    return roots


def _second_moment_root(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """Return P: the square root of the second moment, with the corrections and the epsilon that the optimizer has."""
    eps = float(group["eps"])
    square: Tensor
    if "square_avg" in state:
        square = state["square_avg"]
        return square.sqrt() + eps
    # The update that comes is the next step, and its first moment is still corrected for its start.
    steps = float(state["step"])
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    beta1, beta2 = (float(beta) for beta in group["betas"])
    divisor: Tensor = (square / (1.0 - beta2**steps)).sqrt() + eps
    return divisor * float(1.0 - beta1 ** (steps + 1.0))
