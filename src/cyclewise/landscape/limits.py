"""The largest learning rate at which an optimizer is stable on the quadratic model of the loss.

Beyond it, the parameters' component along the sharpest direction grows at every step. For the largest eigenvalue l of
the Hessian (with an L2 penalty added to it), momentum b and dampening d:

- gradient descent ``2 / l``, heavy ball ``2 (1 + b) / ((1 - d) l)``, Nesterov ``2 (1 + b) / ((1 + 2 b) l)``, from the
  roots of their characteristic polynomials lying inside of the unit circle;
- optimizers that divide by a diagonal P, which changes slowly: the same with the largest eigenvalue of
  ``P^-1/2 H P^-1/2`` (Cohen et al., arXiv:2207.14484). Adam averages gradients, ``d = b = beta1``:
  ``2 (1 + beta1) / ((1 - beta1) l)``, which is 38 / l at 0.9. Its P contains the bias corrections of the present step.
- decoupled weight decay w, as in AdamW: ``2 (1 + b)`` over the largest eigenvalue of
  ``(1 - d) P^-1/2 H P^-1/2 + (1 + b) diag(w)``.

Directions of negative curvature grow at any rate and are no matter of it.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cyclewise.landscape.lanczos import RitzPair, Settled, lanczos, random_start
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.velocity import VelocitySGD

_TOLERANCE = 0.005
_MOST_PRODUCTS = 30


@dataclass(frozen=True)
class Limit:
    """The largest stable learning rate.

    Attributes:
        value: the rate, of the fastest group where groups differ; None where there is none.
        reason: why there is none.
        sharpness: the largest eigenvalue that the optimizer feels, of the preconditioned Hessian with weight decay.
        residual: of that eigenvalue.
    """

    value: float | None
    reason: Unavailable | None = None
    sharpness: float | None = None
    residual: float | None = None


@dataclass(frozen=True)
class Momentum:
    """What momentum makes of the gradients of a group."""

    momentum: float
    dampening: float = 0.0
    is_nesterov: bool = False
    climbs: bool = False

    @property
    def gain(self) -> float:
        """By what the eigenvalues count at the edge of stability, where the parameters change sign at every step."""
        return 1.0 + 2.0 * self.momentum if self.is_nesterov else 1.0 - self.dampening

    @property
    def edge(self) -> float:
        """Rate times eigenvalue at the edge of stability."""
        return 2.0 * (1.0 + self.momentum) / self.gain if self.gain > 0.0 else math.inf


def stability_limit(
    optimizer: Optimizer,
    objective: Objective,
    *,
    sharpness: RitzPair | None = None,
    max_products: int = _MOST_PRODUCTS,
    seed: int = 0,
) -> Limit:
    """Return the largest learning rate at which `optimizer`, as it is now, is stable on the quadratic model.

    Args:
        optimizer: over the model's parameters; parameters of the model that it does not hold stand still.
        objective: the mean loss.
        sharpness: the largest eigenvalue of the objective's Hessian, where it is known; used where the optimizer feels
            just that, else up to `max_products` products find what it feels.
        max_products: Hessian products to spend at most.
        seed: of the start vector.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batch = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> objective = Objective(model, torch.nn.functional.mse_loss, [batch])  # the Hessian is diag(1, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> round(stability_limit(optimizer, objective).value, 4)  # 2 * 1.9 / 4
        0.95
    """
    felt = felt_by(optimizer, objective)
    if isinstance(felt, Unavailable):
        return Limit(None, felt)
    value, residual = felt.sharpness(sharpness, max_products, seed)
    if not value > residual:
        return Limit(None, Unavailable.NO_CURVATURE, value, residual)
    return Limit(felt.momentum.edge / value, None, value, residual)


def sharpness_limit(optimizer: Optimizer) -> float | None:
    """Return the largest eigenvalue, as the optimizer feels it, that is stable at its present rate; None if not known.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> sharpness_limit(torch.optim.SGD([weight], lr=0.125, momentum=0.5))  # 2 * 1.5 / 0.125
        24.0
    """
    optimizer = _unwrapped(optimizer)
    describe = _OPTIMIZERS.get(_defining_class(optimizer))
    fastest = max(float(group["lr"]) for group in optimizer.param_groups)
    momenta = set() if describe is None else {describe(group) for group in optimizer.param_groups}
    return momenta.pop().edge / fastest if len(momenta) == 1 and fastest > 0.0 else None


def felt_by(optimizer: Optimizer, objective: Objective) -> "Felt | Unavailable":
    """Return what the optimizer feels of the objective's Hessian, or why that is not known."""
    optimizer = _unwrapped(optimizer)
    describe = _OPTIMIZERS.get(_defining_class(optimizer))
    if describe is None:
        return Unavailable.UNKNOWN_OPTIMIZER
    known = {id(p) for p in objective.parameters}
    groups = [group for group in optimizer.param_groups if any(id(p) in known for p in group["params"])]
    if not groups:
        return Unavailable.OTHER_PARAMETERS
    momenta = {describe(group) for group in groups}
    if len(momenta) > 1:
        return Unavailable.MIXED_GROUPS
    try:
        return Felt(optimizer, objective, groups, momenta.pop())
    except _NoStateError:
        return Unavailable.NO_STATE


class _NoStateError(Exception):
    """The optimizer has no state to divide by."""


class Felt:
    """What the optimizer feels of the Hessian: ``D (s H + W) D + V``, symmetric.

    D is the root of each parameter's rate, as a fraction of the fastest, over what the optimizer divides by (0 where it
    does not move); W the L2 penalty; V the decoupled decay, as much of the Hessian as has the same effect at the edge
    of stability; s is -1 where the optimizer climbs.

    Attributes:
        root: the diagonal of D, [P].
        momentum: what momentum makes of the gradients.
    """

    def __init__(
        self, optimizer: Optimizer, objective: Objective, groups: list[dict[str, Any]], momentum: Momentum
    ) -> None:
        self.momentum = momentum
        self._objective = objective
        self._sign = -1.0 if momentum.climbs else 1.0
        group_of = {id(p): group for group in groups for p in group["params"]}
        fastest = max(float(group["lr"]) for group in groups)
        divisor = _DIVISORS.get(_defining_class(optimizer))
        roots, penalties, decays = [], [], []
        for p in objective.parameters:
            group = group_of.get(id(p))
            share = _rate_share(group, fastest)
            scale = torch.ones_like(p)
            if group is not None and divisor is not None:
                state = optimizer.state.get(p, {})
                if not float(state.get("step", 0.0)):
                    raise _NoStateError
                scale = divisor(state, group)
            weight_decay = 0.0 if group is None else float(group["weight_decay"])
            is_decoupled = group is not None and bool(group.get("decoupled_weight_decay", False))
            roots.append((share / scale).sqrt())
            penalties.append(torch.full_like(p, 0.0 if is_decoupled else weight_decay))
            effect = (1.0 + momentum.momentum) / momentum.gain
            decays.append(torch.full_like(p, effect * share * weight_decay if is_decoupled else 0.0))
        self.root, self._penalty, self._decay = map(objective.flatten, (roots, penalties, decays))

    def sharpness(self, known: RitzPair | None, max_products: int, seed: int) -> tuple[float, float]:
        """Return the largest eigenvalue and its residual; from that of the Hessian where that tells it."""
        objective = self._objective
        extra = self._penalty + self._decay
        if known is not None and self._sign > 0 and bool((self.root == 1.0).all()) and bool((extra == extra[0]).all()):
            return known.value + float(extra[0]), known.residual
        generator = torch.Generator().manual_seed(seed)
        start = random_start(
            objective.num_parameters, dtype=objective.dtype, device=objective.device, generator=generator
        )
        space = lanczos(self.product, start, num_steps=max_products, is_done=Settled(_TOLERANCE, floor=None))
        pair = space.pair(-1)
        return pair.value, pair.residual

    def product(self, vector: Tensor) -> Tensor:
        """Return the matrix times `vector` ([P]), [P]."""
        inner = self.root * vector
        product = self._sign * self._objective.product(inner) + self._penalty * inner
        return self.root * product + self._decay * vector


def _rate_share(group: dict[str, Any] | None, fastest: float) -> float:
    """Return a group's rate as a fraction of the fastest; all count alike where every rate is 0."""
    if group is None:
        return 0.0
    return float(group["lr"]) / fastest if fastest > 0 else 1.0


def _defining_class(optimizer: Optimizer) -> type:
    """Return the class whose ``step`` the optimizer runs: a subclass that has its own is not its base."""
    # torch wraps ``step`` in the class of whatever optimizer is made first, so a subclass may have a wrapped copy.
    own = inspect.unwrap(type(optimizer).step)
    having = [cls for cls in type(optimizer).__mro__ if hasattr(cls, "step")]
    return [cls for cls in having if inspect.unwrap(cls.step) is own][-1]


def _unwrapped(optimizer: Any) -> Optimizer:
    # Accelerate's wrapper is an Optimizer whose steps are those of the one inside.
    inner = getattr(optimizer, "optimizer", None)
    return _unwrapped(inner) if isinstance(inner, Optimizer) else optimizer


def _sgd(group: dict[str, Any]) -> Momentum:
    momentum = float(group["momentum"])
    dampening = float(group.get("dampening", 0.0)) if momentum else 0.0
    return Momentum(momentum, dampening, bool(group["nesterov"]) and momentum > 0, bool(group["maximize"]))


def _adam(group: dict[str, Any]) -> Momentum:
    beta = float(group["betas"][0])
    return Momentum(beta, beta, climbs=bool(group["maximize"]))


def _rmsprop(group: dict[str, Any]) -> Momentum:
    return Momentum(float(group["momentum"]), climbs=bool(group["maximize"]))


def _adagrad(group: dict[str, Any]) -> Momentum:
    return Momentum(0.0, climbs=bool(group["maximize"]))


def _adam_divisor(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    step = float(state["step"])
    beta1, beta2 = (float(beta) for beta in group["betas"])
    squares = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    root: Tensor = (squares / (1.0 - beta2**step)).sqrt() + group["eps"]
    root *= 1.0 - beta1**step
    return root


def _adamax_divisor(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    largest: Tensor = state["exp_inf"] * (1.0 - float(group["betas"][0]) ** float(state["step"]))
    return largest


def _rmsprop_divisor(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    squares: Tensor = state["square_avg"]
    if group.get("centered"):
        squares = squares - state["grad_avg"].square()
    root: Tensor = squares.clamp(min=0.0).sqrt() + group["eps"]
    return root


def _adagrad_divisor(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    root: Tensor = state["sum"].sqrt() + group["eps"]
    root *= 1.0 + max(0.0, float(state["step"]) - 1.0) * group["lr_decay"]
    return root


_OPTIMIZERS: dict[type, Callable[[dict[str, Any]], Momentum]] = {
    torch.optim.SGD: _sgd,
    VelocitySGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.Adamax: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
_DIVISORS: dict[type, Callable[[dict[str, Any], dict[str, Any]], Tensor]] = {
    torch.optim.Adam: _adam_divisor,
    torch.optim.Adamax: _adamax_divisor,
    torch.optim.RMSprop: _rmsprop_divisor,
    torch.optim.Adagrad: _adagrad_divisor,
}
