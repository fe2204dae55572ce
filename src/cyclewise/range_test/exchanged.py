"""Losses with the targets of other samples of the same batch: what a model owes to its inputs."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

import torch
from torch import Tensor

from cyclewise.stepping import Step, forward, lacks_graph, split_batch

# Exchanges of targets in each batch that is trained on, and how many deviations they can tell at most.
_NUM_EXCHANGES = 4
_CLEAR = 1e3


@dataclass(frozen=True)
class Exchanged:
    """What exchanging the targets within a batch did to its loss.

    Attributes:
        gap: mean loss with the targets of other samples, less the loss with the true ones.
        variance: of the losses with the targets of other samples; not a number of fewer than two exchanges.
    """

    gap: float
    variance: float


def deviations_of(gap: float, variance: float) -> float:
    """Return the gap in standard deviations; 0.0 where outputs are all the same, not a number where nobody knows.

    >>> deviations_of(0.5, 0.25), deviations_of(0.0, 0.0), deviations_of(0.5, math.nan)
    (1.0, 0.0, nan)
    """
    if gap == 0.0 and variance == 0.0:
        return 0.0
    # Exchanges that all give the same loss are as clear as any.
    return gap / math.sqrt(max(variance, (gap / _CLEAR) ** 2)) if math.isfinite(variance) else math.nan


@contextmanager
def comparing(step: Step | None) -> Iterator[list[Exchanged]]:
    """Have the step's loss function also compare with the targets of other samples while the block runs.

    Of a batch that has not been trained on yet the gap is as good as one on held-out data. It costs no forward.
    """
    gaps: list[Exchanged] = []
    if step is None or step.loss_fn is None:
        yield gaps
        return
    own = step.loss_fn

    def both(outputs: Any, targets: Any) -> Tensor:
        loss = own(outputs, targets)
        if isinstance(targets, Tensor) and targets.ndim and len(targets) >= 2 and isinstance(outputs, Tensor):
            with torch.no_grad():
                try:
                    others = [float(own(outputs.detach(), targets.roll(shift, 0))) for shift in _shifts(len(targets))]
                    spread = variance(others) if len(others) > 1 else math.nan
                    gaps.append(Exchanged(fmean(others) - float(loss), spread))
                except RuntimeError as error:
                    if not lacks_graph(error):
                        raise
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
        shifts = [0, *_shifts(len(targets), num_exchanges)]
        try:
            losses = [step.loss_fn(outputs, targets.roll(shift, 0)) for shift in shifts]
        except RuntimeError as error:
            if lacks_graph(error):  # it takes a derivative of the outputs
                return None
            raise
    return [float(loss) for loss in losses]


def _shifts(num_samples: int, num_exchanges: int = _NUM_EXCHANGES) -> list[int]:
    # Rotations, so that no target stays with its own sample.
    count = min(num_exchanges, num_samples - 1)
    return [1 + i * (num_samples - 1) // count for i in range(count)]
