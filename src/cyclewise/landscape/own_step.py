"""The step that the user's optimizer would take now, tried and taken back."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.optim import Optimizer, SparseAdam

from cyclewise.landscape.objective import Objective
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.state import preserve
from cyclewise.stepping import needs_closure

# Shares of the step at which the loss is looked at; 1 is the step itself.
FACTORS = (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1.0, 2.0)
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class NoStepError(Exception):
    """The optimizer's step cannot be tried.

    Args:
        reason: why.
    """

    def __init__(self, reason: Unavailable) -> None:
        super().__init__(str(reason))
        self.reason = reason


def displacement(objective: Objective, optimizer: Optimizer, gradient: Tensor) -> Tensor:
    """Return the change of the parameters, [P], by one step of `optimizer` with `gradient` as the gradient.

    Momentum, preconditioning and weight decay are the optimizer's own, from its present state. Model and optimizer are
    given back bit for bit, and hooks on the optimizer's step do not run.

    Raises:
        NoStepError: the step needs a closure, or moves none of the parameters.
    """
    if needs_closure(optimizer):
        raise NoStepError(Unavailable.NEEDS_CLOSURE)
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in owned for p in objective.parameters):
        raise NoStepError(Unavailable.OTHER_PARAMETERS)
    with preserve(objective.model, optimizer), _without_hooks(optimizer):
        before = [p.detach().clone() for p in objective.parameters]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        for parameter, part in zip(objective.parameters, objective.split(gradient), strict=True):
            if id(parameter) in owned:
                given = part.to(parameter.dtype).clone()
                # The rows that no sample has are zero.
                parameter.grad = given.to_sparse(1) if _expects_sparse(optimizer, parameter) else given
        optimizer.step()
        moved = [p.detach() - old for p, old in zip(objective.parameters, before, strict=True)]
        return objective.flatten(moved)


def _expects_sparse(optimizer: Optimizer, parameter: Tensor) -> bool:
    """Return whether the optimizer takes no dense gradient: by its kind, or because it has summed up sparse ones."""
    state = optimizer.state.get(parameter, {}).values()
    return isinstance(optimizer, SparseAdam) or any(isinstance(item, Tensor) and item.is_sparse for item in state)


@contextmanager
def _without_hooks(optimizer: Optimizer) -> Iterator[None]:
    hooks = [(name, getattr(optimizer, name)) for name in _HOOKS if hasattr(optimizer, name)]
    for name, _ in hooks:
        setattr(optimizer, name, OrderedDict())
    try:
        yield
    finally:
        for name, hook in hooks:
            setattr(optimizer, name, hook)
