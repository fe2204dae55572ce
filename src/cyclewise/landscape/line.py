"""The loss on the straight line between two states of one architecture.

The loss is that of a finished model: eval mode, so dropout is off. Batch norm's running statistics belong to the
weights they were gathered with: between the ends no mean of the two fits, and with it networks look far worse than they
are (Jordan et al., *REPAIR*, arXiv:2211.08403). So where the two states' statistics differ they are gathered anew, from
the given batches (of all ranks), at every point, the ends too: a height must not come from treating the ends
differently. Statistics that agree are frozen on purpose and stay. Other buffers of floats are interpolated, others
taken from the nearer end.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclewise.copies import copied
from cyclewise.errors import ArgumentError
from cyclewise.landscape.parts import batch_size
from cyclewise.ranks import is_distributed, mean_over_ranks, sum_over_ranks
from cyclewise.stepping import LossFunction, batch_loss, device_of, evaluating

State = Mapping[str, Tensor]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters and buffers of a model, by name.

    Example:
        >>> sorted(state_of(nn.Linear(1, 1)))
        ['bias', 'weight']
    """
    return {name: value.detach().clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def check_same_shapes(first: State, second: State, *, names: tuple[str, str]) -> None:
    """Raise unless two states have the same names and shapes.

    Args:
        first: a state.
        second: the state that must be like it.
        names: what the two are called in the message.

    Raises:
        ArgumentError: they differ; the message names the first tensor that does.

    Example:
        >>> check_same_shapes(state_of(nn.Linear(2, 1)), state_of(nn.Linear(3, 1)), names=("model_a", "model_b"))
        Traceback (most recent call last):
            ...
        cyclewise.errors.ArgumentError: model_b must have the shapes of model_a, got weight of shape (1, 3) instead of
        (1, 2); give both the same architecture
    """
    way_out = "give both the same architecture"
    missing = [name for name in first if name not in second] or [name for name in second if name not in first]
    if missing:
        owner = names[0] if missing[0] in first else names[1]
        raise ArgumentError(
            f"{names[1]} must have the parameters of {names[0]}, got {missing[0]} only in {owner}; {way_out}"
        )
    for name, value in first.items():
        if value.shape != second[name].shape:
            raise ArgumentError(
                f"{names[1]} must have the shapes of {names[0]}, got {name} of shape {tuple(second[name].shape)} "
                f"instead of {tuple(value.shape)}; {way_out}"
            )


def losses_on_line(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Sequence[Any],
    first: State,
    second: State,
    positions: Sequence[float],
) -> list[list[float]]:
    """Return the loss of each batch ([num_positions][num_batches]) on the way from one state to the other.

    The model's parameters and buffers are overwritten: call it inside ``preserve(model)``. It costs a forward pass over
    the batches for each position (a third of a gradient evaluation), and another one with batch norm.

    Args:
        model: the model that runs.
        loss_fn: as everywhere.
        batches: on the model's device.
        first: the state at position 0, on the model's device.
        second: the state at position 1, on the model's device.
        positions: where on the line, 0 to 1.
    """
    gathered = _norms_to_gather(model, first, second, batches)
    result = []
    with evaluating(model):
        for position in positions:
            load(model, between(first, second, position))
            if gathered:
                with _gathering(gathered):
                    for batch in batches:
                        batch_loss(model, loss_fn, copied(batch))
            result.append([float(batch_loss(model, loss_fn, copied(batch))) for batch in batches])
    return result


def between(first: State, second: State, position: float) -> dict[str, Tensor]:
    """Return the state at `position` on the way from one state (0) to the other (1); the ends are exact.

    Example:
        >>> between({"w": torch.zeros(1), "n": torch.tensor(3)}, {"w": torch.ones(1), "n": torch.tensor(5)}, 0.25)
        {'w': tensor([0.2500]), 'n': tensor(3)}
    """
    return {name: _between(value, second[name], position) for name, value in first.items()}


def load(model: nn.Module, state: State) -> None:
    """Write a state into the parameters and buffers of a model, in place."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if isinstance(value, Tensor):
                value.copy_(state[name])


def _between(first: Tensor, second: Tensor, position: float) -> Tensor:
    if position in (0.0, 1.0) or not first.is_floating_point():
        return first if position < 0.5 else second
    return torch.lerp(first, second.to(first.dtype), position)


def _norms_to_gather(model: nn.Module, first: State, second: State, batches: Sequence[Any]) -> list[_BatchNorm]:
    """Return the norms whose statistics differ between the states: the same on all ranks, or they would wait for ever.

    None where a batch is a single sample, whose statistics are none.
    """
    norms, differ = [], []
    for prefix, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            names = [f"{prefix}.{name}" if prefix else name for name in ("running_mean", "running_var")]
            norms.append(module)
            differ.append(any(name in first and not torch.equal(first[name], second[name]) for name in names))
    alone = any(batch_size(batch) == 1 for batch in batches)
    alone_anywhere, *differ_anywhere = mean_over_ranks([alone, *differ], device_of(model))
    return [] if alone_anywhere else [norm for norm, any_rank in zip(norms, differ_anywhere, strict=True) if any_rank]


@contextmanager
def _gathering(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let the norms gather the plain mean of the batches' statistics while the block runs."""
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        yield
        for norm in norms:
            _share(norm)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.training = False


def _share(norm: _BatchNorm) -> None:
    """Make the gathered statistics those of all ranks' batches."""
    count = norm.num_batches_tracked
    if not is_distributed() or count is None or norm.running_mean is None or norm.running_var is None:
        return
    total = sum_over_ranks(count.clone())
    for statistic in (norm.running_mean, norm.running_var):
        sum_over_ranks(statistic.mul_(count)).div_(total)
