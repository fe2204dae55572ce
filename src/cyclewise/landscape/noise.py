"""How noisy the gradient is: the noise scale, the gradient's own standard error, signal against noise by layer.

Source: McCandlish et al., *An Empirical Model of Large-Batch Training*, arXiv:1812.06162, appendix A.1. The gradient of
b samples has the mean G and the covariance S / b, S being that of one sample, so E |g_b|^2 = |G|^2 + tr S / b. Two
sizes of batch give two equations for the two unknowns, and an unbiased estimate of each. Here the large batch is all
the samples given, N, and the small ones are its K parts, b_k samples each with the gradient g_k::

    tr S  = sum_k b_k |g_k - g|^2 / (K - 1),     g = sum_k b_k g_k / N
    |G|^2 = |g|^2 - tr S / N

For equal parts these are the paper's formulas, averaged over the parts. The *noise scale* is tr S / |G|^2: the number
of samples at which noise and signal are equally long. The ratio of two unbiased estimates is biased where |G|^2 is
uncertain, so that comes with it, and an interval.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cyclewise.copies import copied
from cyclewise.landscape.moments import STD_ERRORS, Moments, Products, fieller, moments_of
from cyclewise.landscape.objective import LOSS_COST, Objective
from cyclewise.landscape.parts import batch_size, parts_of
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.ranks import gathered, sum_over_ranks
from cyclewise.stepping import batch_loss, forward, split_batch

# Enough for a standard error, few enough that small parts do not waste the machine.
_NUM_PARTS = 8
_BYTES = 8


@dataclass(frozen=True)
class LayerNoise:
    """Signal and noise of one parameter's gradient.

    Attributes:
        name: of the parameter.
        signal: |G|^2 of this parameter, unbiased; noise may make it negative.
        variance: tr S of this parameter, unbiased: the squared noise of the gradient of one sample.
        signal_to_noise: length of the signal over that of the noise in the gradient of all samples given; None
            without noise.
    """

    name: str
    signal: float
    variance: float
    signal_to_noise: float | None


@dataclass(frozen=True)
class GradientNoise:
    """How far the gradient over the given samples can be trusted.

    Attributes:
        noise_scale: tr S / |G|^2, in samples; None with a `reason`.
        noise_scale_std_error: its standard error, by the delta method; None where it is not known.
        noise_scale_interval: where it may lie, (low, high), by Fieller's theorem with two standard errors; high is None
            where the gradient may as well be zero, low is 0 where the noise may. None for fewer than three parts.
        reason: why there is no noise scale; None where there is one.
        signal: |G|^2, unbiased; noise may make it negative. None where it is not known.
        signal_std_error: its standard error, by the jackknife over the parts.
        variance: tr S: the squared noise of the gradient of one sample. None where it is not known.
        variance_std_error: its standard error, by the jackknife over the parts.
        gradient_norm: length of the gradient of the mean loss over the batches.
        noise_norm: the length that its noise alone has, as a root mean square. None where it is not known.
        weighting_bias: how far it is, because a short batch counts as much as a full one, from the gradient in which
            each sample counts the same, as a share of the latter's length; 0 for equal batches.
        num_samples: N.
        effective_samples: samples that, each counting the same, would give the gradient the same noise; less than N
            where the batches differ in size.
        num_parts: K.
        layers: signal and noise by parameter, in the model's order.
    """

    noise_scale: float | None
    noise_scale_std_error: float | None
    noise_scale_interval: tuple[float, float | None] | None
    reason: Unavailable | None
    signal: float | None
    signal_std_error: float | None
    variance: float | None
    variance_std_error: float | None
    gradient_norm: float
    noise_norm: float | None
    weighting_bias: float
    num_samples: int | None
    effective_samples: float | None
    num_parts: int
    layers: tuple[LayerNoise, ...] = ()

    @property
    def is_zero_within_noise(self) -> bool | None:
        """Whether the gradient cannot be told from zero: |G|^2 is below two standard errors; None if not known."""
        if self.gradient_norm == 0.0:
            return True
        if self.signal is None or self.signal_std_error is None:
            return None
        return self.signal < STD_ERRORS * self.signal_std_error


def gradient_noise(objective: Objective, *, num_parts: int = _NUM_PARTS) -> GradientNoise:
    """Measure the noise of the gradient; costs 1 gradient evaluation, and a third more where batches are split.

    Batches are the parts where there are at least `num_parts` of them (neighbours are added up where there are many
    more), otherwise each batch is split, so one batch is enough. Dropout's noise counts, as it does in training: each
    part draws masks of its own. In a distributed run the samples are those of all ranks.

    Args:
        objective: the mean loss over the batches.
        num_parts: K, at least 2; fewer where the objective's `most_bytes` does not hold all their gradients.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> inputs = torch.ones(4, 1)
        >>> targets = torch.tensor([[-1.0], [-2.0], [-3.0], [-2.0]])  # a sample's gradient is -2 times its target
        >>> noise = gradient_noise(Objective(model, torch.nn.functional.mse_loss, [(inputs, targets)]))
        >>> round(noise.variance, 4), round(noise.signal, 4), round(noise.noise_scale, 4)  # 8 / 3, 16 - 2 / 3
        (2.6667, 15.3333, 0.1739)
    """
    own_sizes = [_num_samples(objective, index) for index in range(objective.num_batches)]
    sizes = [size for of_rank in gathered(own_sizes) for size in of_rank]
    num_parts = max(2, min(num_parts, objective.most_bytes // (2 * _BYTES * objective.num_parameters)))
    num_splits = max(1, math.ceil(num_parts / objective.num_all_batches))
    found = None
    if num_splits > 1 and all(size is not None and size > 1 for size in sizes):
        found = _split_gradients(objective, num_splits, [min(num_splits, size or 1) for size in sizes])
    if found is None:
        found = _batch_gradients(objective, num_parts, [size or 1 for size in sizes])
    gradients, counts, gradient = found
    norm = float(gradient.double().norm())
    known = [size for size in sizes if size is not None]
    reason = _refusal(gradients, known, num_batches=len(sizes))
    if reason is not None:
        num_samples = sum(known) if len(known) == len(sizes) else None
        return GradientNoise(None, None, None, reason, None, None, None, None, norm, None, 0.0, num_samples, None,
                             len(counts))  # fmt: skip
    weights = torch.tensor(counts, dtype=torch.float64, device=gradients.device) / sum(counts)
    weighted = (weights.to(gradients.dtype)[:, None] * gradients).sum(0)
    weighted_norm = float(weighted.double().norm())
    bias = (
        float((gradient - weighted).double().norm()) / weighted_norm if len(set(known)) > 1 and weighted_norm else 0.0
    )
    moments = moments_of(gradients, counts)
    effective = len(known) ** 2 / sum(1.0 / size for size in known)
    scale, error, interval, reason = _scale(moments)
    covariance = moments.covariance
    return GradientNoise(
        noise_scale=scale,
        noise_scale_std_error=error,
        noise_scale_interval=interval,
        reason=reason,
        signal=moments.signal,
        signal_std_error=None if covariance is None else math.sqrt(covariance[0][0]),
        variance=moments.variance,
        variance_std_error=None if covariance is None else math.sqrt(covariance[1][1]),
        gradient_norm=norm,
        noise_norm=math.sqrt(moments.variance / effective),
        weighting_bias=bias,
        num_samples=sum(known),
        effective_samples=effective,
        num_parts=len(counts),
        layers=_layers(objective, gradients, counts),
    )


def _num_samples(objective: Objective, index: int) -> int | None:
    """Return how many samples batch `index` has; None where they cannot be counted.

    With a target without dimensions it may be a single sample, the first dimension being its features, channels or
    steps: then that is no dimension of the output. Else the target is one for all.
    """
    batch = objective.batches[index]
    size = batch_size(batch)
    if not isinstance(batch, (tuple, list)) or not isinstance(batch[-1], Tensor) or batch[-1].ndim or size is None:
        return size
    with objective.still(index), torch.no_grad():
        outputs = forward(objective.model, split_batch(copied(batch))[0])
    objective.cost += LOSS_COST / objective.num_batches
    is_batched = not isinstance(outputs, Tensor) or (outputs.ndim > 0 and len(outputs) == size)
    return size if is_batched else 1


def _scale(
    moments: Moments,
) -> tuple[float | None, float | None, tuple[float, float | None] | None, Unavailable | None]:
    signal, variance, covariance = moments.signal, moments.variance, moments.covariance
    interval = None if covariance is None else fieller(signal, variance, covariance)
    if signal <= 0.0:
        return None, None, interval, Unavailable.NO_SIGNAL
    scale, error = variance / signal, None
    if covariance is not None:
        squared = covariance[1][1] - 2.0 * scale * covariance[0][1] + scale**2 * covariance[0][0]
        error = math.sqrt(max(squared, 0.0)) / signal
    return scale, error, interval, None


def _refusal(gradients: Tensor, known: Sequence[int], *, num_batches: int) -> Unavailable | None:
    if not bool(torch.isfinite(gradients).all()):
        return Unavailable.GRADIENT_NOT_FINITE
    if len(known) < num_batches:
        return Unavailable.UNKNOWN_SIZES
    if len(gradients) < 2:
        return Unavailable.ONE_SAMPLE if known[0] < 2 else Unavailable.NOT_SPLITTABLE
    return None if bool((gradients != 0).any()) else Unavailable.NO_GRADIENT


def _batch_gradients(objective: Objective, num_parts: int, sizes: Sequence[int]) -> tuple[Tensor, list[int], Tensor]:
    """Return the gradients of the batches (neighbours added up where there are many), sizes, and the plain mean.

    Args:
        objective: the mean loss over the batches.
        num_parts: as many groups at least, where there are batches enough.
        sizes: of all ranks' batches.
    """
    num_groups = min(len(sizes), 2 * num_parts)
    bounds = [i * len(sizes) // num_groups for i in range(num_groups + 1)]
    counts = [sum(sizes[start:end]) for start, end in pairwise(bounds)]
    gradients, mean = _empty(objective, num_groups)
    for index in range(objective.num_batches):
        place = objective.first_batch + index
        group = bisect_right(bounds, place) - 1
        gradient = objective.batch_gradient(index)
        mean += gradient / len(sizes)
        gradients[group] += gradient * (sizes[place] / counts[group])
    return sum_over_ranks(gradients), counts, sum_over_ranks(mean)


def _split_gradients(
    objective: Objective, num_splits: int, rows_of: Sequence[int]
) -> tuple[Tensor, list[int], Tensor] | None:
    """Return the gradients of the batches' parts, sizes, and the batches' plain mean; None if parts don't run.

    Args:
        objective: the mean loss over the batches.
        num_splits: the most parts of a batch.
        rows_of: how many parts each of all ranks' batches has.
    """
    gradients, mean = _empty(objective, sum(rows_of))
    counts = torch.zeros(sum(rows_of), dtype=torch.int64, device=objective.device)
    row = sum(rows_of[: objective.first_batch])
    runs = True
    for index, batch in enumerate(objective.batches):
        parts = parts_of(batch, num_splits) or []
        found = [_part_gradient(objective, index, place, part) for place, (part, _) in enumerate(parts)]
        known = [item for item in found if item is not None]
        objective.cost += len(known) / max(1, len(parts)) / objective.num_batches
        if not parts or len(known) < len(parts):
            runs = False
            break
        sizes = [count for _, count in parts]
        factors = [1.0] * len(parts)
        if _is_sum(objective, index, [loss for loss, _ in known], sizes):
            factors = [sum(sizes) / count for count in sizes]
        for (_, gradient), count, factor in zip(known, sizes, factors, strict=True):
            gradients[row] = gradient * factor
            counts[row] = count
            mean += gradients[row] * (count / sum(sizes) / objective.num_all_batches)
            row += 1
    if not all(gathered(runs)):
        return None
    return sum_over_ranks(gradients), [int(count) for count in sum_over_ranks(counts)], sum_over_ranks(mean)


def _part_gradient(objective: Objective, index: int, place: int, part: Any) -> tuple[float, Tensor] | None:
    """Return loss and gradient of part `place` of batch `index`; None if it does not run."""
    # Masks of its own: parts that drop the same units would hide dropout's noise.
    still = partial(objective.still, objective.num_all_batches * (place + 1) + index)
    try:
        with still():
            loss = batch_loss(objective.model, objective.loss_fn, copied(part))
            gradient = objective.flatten(torch.autograd.grad(loss, objective.parameters, materialize_grads=True))
    except Exception:
        # The model has run on the batch itself: what it can't take is a part. But what does not fail again was no
        # matter of the part.
        try:
            with still():
                batch_loss(objective.model, objective.loss_fn, copied(part))
        except Exception:
            return None
        raise
    return float(loss.detach()), gradient


def _empty(objective: Objective, num_rows: int) -> tuple[Tensor, Tensor]:
    """Return room for gradients, [num_rows, P], of which each rank fills its own, and for their mean, [P]."""
    rows = torch.zeros(num_rows, objective.num_parameters, dtype=objective.dtype, device=objective.device)
    return rows, objective.zeros()


def _is_sum(objective: Objective, index: int, losses: Sequence[float], counts: Sequence[int]) -> bool:
    """Return whether a batch's loss is the sum over its samples: then its parts' losses add up to it."""
    with objective.still(index), torch.no_grad():
        whole = float(objective.batch_loss(index))
    objective.cost += LOSS_COST / objective.num_batches
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    return abs(whole - sum(losses)) < abs(whole - mean)


def _layers(objective: Objective, gradients: Tensor, counts: Sequence[int]) -> tuple[LayerNoise, ...]:
    layers = []
    everything = torch.arange(len(counts))
    for name, part in zip(
        objective.names, torch.split(gradients, [p.numel() for p in objective.parameters], dim=1), strict=True
    ):
        signal, variance = Products.of(part, counts).unbiased(everything)
        ratio = math.sqrt(max(signal, 0.0) / variance * sum(counts)) if variance > 0.0 else None
        layers.append(LayerNoise(name, signal, variance, ratio))
    return tuple(layers)
