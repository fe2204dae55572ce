"""The noise of a training step's gradient, from two parts of its data at the same weights.

The formulas are those of :mod:`cyclewise.landscape.noise`, for two parts, but the model runs as it trains: in its own
mode and precision, batch norm by the statistics of the part.

Gradients of consecutive steps would cost nothing. But the first one, g1, has moved the weights against itself: that
lowers the product of the two, which stands for the squared norm without noise, by ``lr * g1'Hg1``. Near the edge of
stability that is all of it, and more.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cyclewise.copies import copied
from cyclewise.landscape.moments import Moments, moments_of
from cyclewise.landscape.parts import batch_size, parts_of
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.state import preserve
from cyclewise.stepping import Step


class NoPartsError(Exception):
    """There are no two parts of the data to compare.

    Args:
        reason: why.
        detail: more about that.
    """

    def __init__(self, reason: Unavailable, detail: str | None = None) -> None:
        super().__init__(detail or str(reason))
        self.reason = reason
        self.detail = detail


def step_noise(step: Step, batches: Sequence[Any], parameters: Sequence[Tensor], *, scale: float) -> Moments:
    """Estimate squared norm and variance of the gradient of the loss, which must be a mean over the samples.

    Costs a forward and a backward pass over one batch, or over two. Leaves no trace in the model, its buffers and the
    generators; gradients in ``.grad`` are not touched.

    Args:
        step: computes the loss of a batch.
        batches: those of one update; where there are several the first two are compared, else the halves of the one.
        parameters: what the gradient is taken by.
        scale: what the loss is multiplied by for the backward pass, as a scaler of float16 does.

    Raises:
        NoPartsError: there are no two parts.
    """
    parts = _two_parts(batches)
    try:
        with preserve(step.model, step.loss_fn), torch.enable_grad():
            gradients = torch.stack([_gradient(step, part, parameters, scale) for part, _ in parts])
    except Exception as error:  # the model has just run on the batches themselves
        detail = f"the model does not take a part of a batch ({type(error).__name__}: {error})"
        raise NoPartsError(Unavailable.NOT_SPLITTABLE, detail) from error
    return moments_of(gradients / scale, [count for _, count in parts])


def _two_parts(batches: Sequence[Any]) -> list[tuple[Any, int]]:
    if not batches:
        raise NoPartsError(Unavailable.NO_BATCH)
    counted = [(batch, batch_size(batch)) for batch in batches[:2]]
    known = [(batch, size) for batch, size in counted if size]
    if len(known) == 2:
        return known
    if not known:
        raise NoPartsError(Unavailable.UNKNOWN_SIZES)
    parts = parts_of(known[0][0], 2)
    if parts is None:
        raise NoPartsError(Unavailable.ONE_SAMPLE)
    return parts


def _gradient(step: Step, batch: Any, parameters: Sequence[Tensor], scale: float) -> Tensor:
    loss = step.loss(copied(batch, step.device))  # the batch is the loop's, which may go on with it
    gradient = torch.autograd.grad(loss if scale == 1.0 else loss * scale, parameters, materialize_grads=True)
    return torch.cat([_real(part.to_dense() if part.is_sparse else part).float().flatten() for part in gradient])


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
