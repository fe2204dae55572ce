"""SGD with momentum in the published form, whose velocity contains the rate: ``v <- m*v - lr*g``, then ``w <- w + v``.

The same as torch's SGD (``v <- m*v + g``, then ``w <- w - lr*v``) while the rate stands still. Where it moves, torch's
rescales at once all that is in flight; here a step keeps the rate that it was made with.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise._validation import fraction, instance, non_negative
from cyclewise.errors import ArgumentError


class VelocitySGD(Optimizer):
    """Stochastic gradient descent with momentum, each gradient weighed by the rate of its own step.

    For weights w, their gradient g and velocity v, at first 0::

        v <- momentum * v - lr * (g + weight_decay * w)
        w <- w + v                                              nesterov=False
        w <- w + momentum * v - lr * (g + weight_decay * w)     nesterov=True

    At a constant rate the weights are those of :class:`torch.optim.SGD`, up to rounding. Under a cycle they are not:
    torch's velocity is a sum of gradients, and all of it is multiplied by the present rate. When the rate is multiplied
    by k, torch's next step is k times as long at once, and this one only grows to that over some ``1 / (1 - momentum)``
    steps. A rate that was found with one of the two is measured for that one.

    Args:
        params: parameters, or dicts of parameter groups, as for any torch optimizer.
        lr: rate, at least 0; a tensor of one element is kept, and may be written in place.
        momentum: fraction of the velocity that is kept, in [0, 1].
        weight_decay: weight of the L2 penalty, at least 0.
        nesterov: look ahead by the velocity; needs a momentum.
        maximize: climb instead of descend; the weights still decay.

    Raises:
        ArgumentError: an argument, also one of a group, has an impossible value.
        ArgumentTypeError: `nesterov` or `maximize` is neither True nor False.

    Source: Sutskever, Martens, Dahl and Hinton, ICML 2013, equations 1 and 2; with `nesterov` the simplified form of
    Bengio, Boulanger-Lewandowski and Pascanu, arXiv:1212.0901, section 3.5, at a constant momentum.

    Example:
        >>> def train(optimizer_class, rates):
        ...     weight = torch.zeros(1, requires_grad=True)
        ...     optimizer = optimizer_class([weight], lr=rates[0], momentum=0.5)
        ...     for optimizer.param_groups[0]["lr"] in rates:
        ...         optimizer.zero_grad()
        ...         weight.sum().backward()  # the gradient is 1 everywhere
        ...         optimizer.step()
        ...     return round(weight.item(), 4)
        >>> train(VelocitySGD, [0.1, 0.1, 0.1]), train(torch.optim.SGD, [0.1, 0.1, 0.1])
        (-0.425, -0.425)
        >>> train(VelocitySGD, [0.1, 0.1, 1.0]), train(torch.optim.SGD, [0.1, 0.1, 1.0])
        (-1.325, -2.0)
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        given = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, _checked(given))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it leaves out is taken from the arguments of the optimizer.

        Raises:
            ArgumentError: the group has an impossible value.
        """
        if isinstance(param_group, dict):
            param_group = {**param_group, **_checked({**self.defaults, **param_group})}
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update from the gradients; parameters without one stay as they are.

        Args:
            closure: computes the loss anew, with its gradients, and returns it.

        Returns:
            what `closure` returned; None without one.

        Raises:
            ArgumentError: a gradient is sparse; nothing is updated then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            moving = [[weight for weight in group["params"] if weight.grad is not None] for group in self.param_groups]
            for weights in moving:
                _check_dense(weights)
            for group, weights in zip(self.param_groups, moving, strict=True):
                for together in [weights] if _fits_foreach(weights) else [[weight] for weight in weights]:
                    if together:
                        self._update(group, together)
        return loss

    def _update(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        velocities = [self._velocity(weight) for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        lr = _rate_on(weights[0].device, group["lr"])
        advance = _advance_together if len(weights) > 1 else _advance_each
        advance(weights, gradients, velocities, {**group, "lr": lr})

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity = state["velocity"]
        assert isinstance(velocity, Tensor)
        return velocity


def _advance_each(weights: list[Tensor], gradients: list[Tensor], velocities: list[Tensor], group: Any) -> None:
    for weight, gradient, velocity in zip(weights, gradients, velocities, strict=True):
        if group["maximize"]:
            gradient = -gradient
        if group["weight_decay"] != 0:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        descent = gradient * -group["lr"]
        velocity.mul_(group["momentum"]).add_(descent)
        if group["nesterov"]:
            weight.add_(velocity * group["momentum"]).add_(descent)
        else:
            weight.add_(velocity)


def _advance_together(weights: list[Tensor], gradients: list[Tensor], velocities: list[Tensor], group: Any) -> None:
    """Do what `_advance_each` does, in the same order of operations, with one kernel for all tensors."""
    descents: Any = gradients
    if group["maximize"]:
        descents = torch._foreach_neg(descents)
    if group["weight_decay"] != 0:
        descents = torch._foreach_add(descents, weights, alpha=group["weight_decay"])
    descents = torch._foreach_mul(descents, -group["lr"])
    torch._foreach_mul_(velocities, group["momentum"])
    torch._foreach_add_(velocities, descents)
    if group["nesterov"]:
        torch._foreach_add_(weights, torch._foreach_mul(velocities, group["momentum"]))
        torch._foreach_add_(weights, descents)
    else:
        torch._foreach_add_(weights, velocities)


def _fits_foreach(weights: list[Tensor]) -> bool:
    # Subclasses of Tensor need not know the joint kernels, and a rate in a tensor lives on one device.
    is_plain = all(type(weight) in (Tensor, nn.Parameter) for weight in weights)
    return is_plain and len({weight.device for weight in weights}) == 1


def _rate_on(device: torch.device, lr: float | Tensor) -> float | Tensor:
    """Return the rate as the kernels of `device` take it: a number, or a tensor without dimensions of that device."""
    if not isinstance(lr, Tensor):
        return lr
    return lr.reshape(()) if lr.device == device else lr.item()


def _check_dense(weights: list[Tensor]) -> None:
    for weight in weights:
        if weight.grad is not None and weight.grad.layout != torch.strided:
            raise ArgumentError(
                f"params must have dense gradients, got one of layout {weight.grad.layout} and shape "
                f"{tuple(weight.grad.shape)}; make the embedding with sparse=False, or use torch.optim.SGD for it"
            )


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the five settings of a group, each checked."""
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ArgumentError(
            f"lr must be one number, got a tensor of shape {tuple(lr.shape)}; give each parameter group its own rate"
        )
    rate = non_negative("lr", lr.item() if isinstance(lr, Tensor) else lr, way_out="call cyclewise.lr_find() for one")
    momentum = fraction("momentum", options["momentum"])
    for name in ("nesterov", "maximize"):
        instance(name, options[name], bool, "True or False", way_out="leave it out for False")
    if options["nesterov"] and momentum == 0:
        raise ArgumentError(
            f"momentum must be above 0 with nesterov=True, got {options['momentum']!r}; "
            "0.9 is usual, without momentum leave nesterov out"
        )
    return {
        "lr": lr if isinstance(lr, Tensor) else rate,
        "momentum": momentum,
        "weight_decay": non_negative("weight_decay", options["weight_decay"], way_out="1e-4 is usual, 0 is none"),
        "nesterov": options["nesterov"],
        "maximize": options["maximize"],
    }
