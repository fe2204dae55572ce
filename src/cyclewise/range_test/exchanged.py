"""Losses with the targets of other samples of the same batch: what a model owes to its inputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cyclewise.stepping import Step, forward, lacks_graph, split_batch


@contextmanager
def comparing(step: Step | None) -> Iterator[list[float]]:
    """Have the step's loss function also compare with the targets of other samples while the block runs.

    The batch has not been trained on yet, so the difference is as good as one on held-out data, and costs no forward.
    """
    gaps: list[float] = []
    if step is None or step.loss_fn is None:
        yield gaps
        return
    own = step.loss_fn

    def both(outputs: Any, targets: Any) -> Tensor:
        loss = own(outputs, targets)
        if isinstance(targets, Tensor) and targets.ndim and len(targets) >= 2 and isinstance(outputs, Tensor):
            with torch.no_grad():
                try:
                    gaps.append(float(own(outputs.detach(), targets.roll(len(targets) // 2, 0))) - float(loss))
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
        # Rotations, so that no target stays with its own sample.
        count = min(num_exchanges, len(targets) - 1)
        shifts = [1 + i * (len(targets) - 1) // count for i in range(count)]
        try:
            losses = [step.loss_fn(outputs, targets.roll(shift, 0)) for shift in [0, *shifts]]
        except RuntimeError as error:
            if lacks_graph(error):  # it takes a derivative of the outputs
                return None
            raise
    return [float(loss) for loss in losses]
