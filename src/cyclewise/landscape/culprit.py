"""Which part of a model cannot be differentiated twice, for the message that says so."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cyclewise.errors import ArgumentError
from cyclewise.landscape.parts import tensors_in
from cyclewise.landscape.transforms import is_stand_in

if TYPE_CHECKING:
    from cyclewise.landscape.objective import Objective


class NotTwiceError(ArgumentError):
    """The loss cannot be differentiated twice; the message names the module."""


def not_twice(objective: "Objective", index: int, error: RuntimeError) -> NotTwiceError:
    """Return the error that names the module through which the loss of a batch cannot be differentiated twice.

    Args:
        objective: the function that was to be differentiated.
        index: the batch.
        error: what torch said.
    """
    reason = str(error).splitlines()[0].rstrip(".")
    return NotTwiceError(
        f"model must be differentiable twice for its curvature, got {_culprit(objective, index)}: {reason}; "
        "exchange that part for one made of plain torch operations"
    )


class ReentrantError(ArgumentError):
    """The model uses checkpoints that gradients by ``torch.autograd.grad`` do not pass."""


def refuse_reentrant(loss: Tensor) -> None:
    """Refuse a loss behind which lies a re-entrant checkpoint; where torch does not raise, its gradients are zero.

    Raises:
        ReentrantError: one lies there.
    """
    if any(node.name() == "CheckpointFunctionBackward" for node in _reached([loss])):
        raise ReentrantError(
            "model must keep its graph for gradients by torch.autograd.grad, got a part under "
            "torch.utils.checkpoint(use_reentrant=True); pass use_reentrant=False"
        )


def nodes_of(gradients: Sequence[Tensor]) -> list[Any]:
    """Return the nodes of the graph behind some gradients.

    Raises:
        RuntimeError: one of them stands for a backward pass that is once differentiable. Torch leaves a node there that
            raises; but as it is on no path to a parameter, a second derivative would pass it by and be wrong.
    """
    nodes = list(_reached(gradients))
    if any(node.name().endswith("::Error") for node in nodes):
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
    return nodes


def _reached(tensors: Sequence[Tensor]) -> Iterator[Any]:
    seen: set[Any] = set()
    pending: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            yield node
            pending.extend(following for following, _ in node.next_functions if following is not None)


def _culprit(objective: "Objective", index: int) -> str:
    """Return the innermost module whose output cannot be differentiated twice, in words."""
    calls: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]] = []
    handles = []
    for name, module in objective.model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            calls.append((name, module, _with_graph((args, kwargs)), _with_graph(output)))

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        with objective.still(index, twice=True):
            objective.batch_loss(index)
            for name, module, inputs, outputs in calls:  # a module's parts return before it does
                # The way to a parameter that what came before has used too leads through that.
                before = {id(getattr(node, "variable", None)) for node in _reached(inputs)}
                own = [p for p in _with_graph(list(module.parameters())) if id(p) not in before]
                if not _is_differentiable_twice([*inputs, *own], outputs):
                    return f"{type(module).__name__} {name!r}" if name else type(module).__name__
    finally:
        for handle in handles:
            handle.remove()
    return "a loss_fn that is not"


def _is_differentiable_twice(sources: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    if not outputs or not sources:
        return True
    try:
        value = torch.stack([o.square().sum() for o in outputs]).sum()
        gradient = torch.autograd.grad(value, sources, create_graph=True, materialize_grads=True)
        nodes_of(gradient)
        curved = [g for g in gradient if g.requires_grad]
        if curved:
            # The graph is that of all modules: the next ones are looked at through it too.
            torch.autograd.grad(
                curved, sources, [torch.ones_like(g) for g in curved], retain_graph=True, materialize_grads=True
            )
    except RuntimeError:
        return False
    return True


def _with_graph(values: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(values) if tensor.requires_grad and not is_stand_in(tensor)]
