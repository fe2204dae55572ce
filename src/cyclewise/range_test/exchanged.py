"""Losses with the targets of other samples of the same batch: what a model owes to its inputs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cyclewise import mismatch
from cyclewise.stepping import LossFunction, Step, forward, lacks_graph, split_batch

# Exchanges of targets in each batch that is trained on.
_NUM_EXCHANGES = 4
# Sums in another order differ by so many roundings at most.
_ROUNDINGS = 4.0


@dataclass(frozen=True)
class Exchanged:
    """What exchanging the targets within a batch did to its loss.

    Attributes:
        gap: mean loss with the targets of other samples, less the loss with the true ones.
        variance: of the losses with the targets of other samples, and what rounding adds to it; not a number where the
            batch is too small for four of them.
    """

    gap: float
    variance: float


def deviations_of(gap: float, variance: float) -> float:
    """Return the gap in standard deviations; not a number where nobody knows.

    >>> deviations_of(0.5, 0.25), deviations_of(0.0, 0.0), deviations_of(0.5, math.nan), deviations_of(math.inf, 1.0)
    (1.0, nan, nan, nan)
    """
    is_known = math.isfinite(gap) and math.isfinite(variance) and variance > 0.0
    return gap / math.sqrt(variance) if is_known else math.nan


def mean_and_variance(losses: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the variance, not a number of one loss alone; losses too large for it raise nothing.

    >>> mean_and_variance([1.0, 3.0]), mean_and_variance([1e200, -1e200])
    ((2.0, 2.0), (0.0, inf))
    """
    mean = sum(losses) / len(losses)
    # A power of a number that is too large raises, a product does not.
    squares = sum((loss - mean) * (loss - mean) for loss in losses)
    return mean, squares / (len(losses) - 1) if len(losses) > 1 else math.nan


@contextmanager
def comparing(step: Step | None) -> Iterator[list[Exchanged]]:
    """Have the step's loss function also compare with the targets of other samples while the block runs.

    Of a batch that has not been trained on yet the gap is as good as one on held-out data. It costs no forward. Of
    several losses in a block (accumulated batches, a closure) the first is compared.
    """
    gaps: list[Exchanged] = []
    if step is None or step.loss_fn is None:
        yield gaps
        return
    own = step.loss_fn

    def both(outputs: Any, targets: Any) -> Tensor:
        # The step, which would refuse it, does not see whose loss this is.
        if mismatch.is_elementwise(own):
            mismatch.refuse_broadcast(own, outputs, targets)
        loss = own(outputs, targets)
        can_exchange = isinstance(targets, Tensor) and targets.ndim > 0 and len(targets) >= 2
        if not gaps and can_exchange and isinstance(outputs, Tensor):
            with torch.no_grad(), _untouched(own):
                others = _losses(own, outputs.detach(), targets, _NUM_EXCHANGES)
                if others is not None:
                    gaps.append(_exchanged(loss, others))
        return loss

    step.loss_fn = both
    try:
        yield gaps
    finally:
        step.loss_fn = own


def with_exchanged_targets(step: Step, batch: Any, num_exchanges: int) -> list[float] | None:
    """Return the loss of a batch, then its losses with the targets of other samples; None where they cannot be."""
    if not isinstance(batch, (tuple, list)) or step.loss_fn is None:
        return None
    batch = step.placed(batch)
    inputs, targets = split_batch(batch)
    if not isinstance(targets, Tensor) or targets.ndim == 0 or len(targets) < 4:
        return None
    with step.precision():
        outputs = forward(step.model, inputs)
        try:
            true = step.loss_fn(outputs, targets)
        except RuntimeError as error:
            if lacks_graph(error):  # it takes a derivative of the outputs
                return None
            raise
        with _untouched(step.loss_fn):
            others = _losses(step.loss_fn, outputs, targets, num_exchanges)
    if others is None:
        return None
    return [float(loss) for loss in (true, *others)]


def _losses(loss_fn: LossFunction, outputs: Tensor, targets: Tensor, num_exchanges: int) -> list[Tensor] | None:
    """Return the losses with the targets of other samples; None where the loss takes none of those.

    It may take a derivative of the outputs, or know which targets are whose. An error that does not come again when the
    loss is asked once more is another one, and passes.
    """
    losses = []
    for shift in _shifts(len(targets), num_exchanges):
        others = targets.roll(shift, 0)
        try:
            losses.append(loss_fn(outputs, others))
        except Exception:
            try:
                loss_fn(outputs, others)
            except Exception:
                return None
            raise
    return losses


def _exchanged(loss: Tensor, others: list[Tensor]) -> Exchanged:
    true, *values = (float(value.detach()) for value in (loss, *others))
    mean, variance = mean_and_variance(values)
    rounding = _ROUNDINGS * torch.finfo(loss.dtype).eps * true
    return Exchanged(mean - true, variance + rounding * rounding if len(others) == _NUM_EXCHANGES else math.nan)


@contextmanager
def _untouched(loss_fn: Any) -> Iterator[None]:
    """Give back the random numbers that a loss draws, and what it counts and keeps: they are those of true targets."""
    generator = torch.get_rng_state()
    owner = getattr(loss_fn, "__self__", loss_fn)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    counters = [
        (vars(part), name, value)
        for part in (modules or [owner])
        for name, value in getattr(part, "__dict__", {}).items()
        if isinstance(value, (int, float))
    ]
    # The copies are what the others get: a buffer that is written to, even with its own values, breaks the true loss's
    # backward pass.
    kept = [(module, name, buffer) for module in modules for name, buffer in module._buffers.items()
            if buffer is not None]  # fmt: skip
    for module, name, buffer in kept:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        torch.set_rng_state(generator)
        for attributes, name, value in counters:
            attributes[name] = value
        for module, name, buffer in kept:
            module._buffers[name] = buffer


def _shifts(num_samples: int, num_exchanges: int = _NUM_EXCHANGES) -> list[int]:
    # Rotations, so that no target stays with its own sample.
    count = min(num_exchanges, num_samples - 1)
    return [1 + i * (num_samples - 1) // count for i in range(count)]
