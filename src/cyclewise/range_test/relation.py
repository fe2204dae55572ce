"""Whether targets have to do with inputs, asked of the data alone: distance covariance against exchanged targets.

A short sweep of a model can fail to show it: of raw features it learns the class shares first. Distance covariance
(Székely, Rizzo & Bakirov 2007, arXiv:0803.4101) is zero only where two quantities are independent, whatever their form.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
# A row per sample: whole numbers are names that are the same or not, others are quantities.
Rows = NDArray[np.generic]

# Names of which few are alike (users, words) show little in fewer; of wide inputs a quarter is compared.
_MOST_SAMPLES = 1000
_WIDE = 100
_FEWEST_SAMPLES = 20
_MOST_POSITIONS = 1000
# Unrelated targets pass for related in one of 200 cases.
_NUM_EXCHANGES = 199


def are_related(batches: Iterable[Any], *, seed: int) -> bool | None:
    """Return whether the targets of the batches have to do with their inputs.

    Args:
        batches: tuples or lists of tensors with a row per sample, the last one of targets.
        seed: of the exchanges.

    Returns:
        whether the true targets agree with the inputs better than each of 199 random exchanges of them does; None where
        the batches are of another kind, or have fewer than 20 different samples.

    Example:
        >>> inputs = torch.arange(40.0)[:, None]
        >>> are_related([(inputs, (inputs - 20.0) ** 2)], seed=0), are_related([inputs], seed=0)
        (True, None)
    """
    usable = [batch for batch in batches if _is_usable(batch)]
    is_wide = any(sum(part[0].numel() for part in batch) > _WIDE for batch in usable)
    most = _MOST_SAMPLES // 4 if is_wide else _MOST_SAMPLES
    # More than are compared, as some may be the same.
    step = max(1, sum(len(batch[-1]) for batch in usable) // (4 * most))
    samples = [_rows(batch, step) for batch in usable]
    if len({(inputs.shape[1], targets.shape[1]) for inputs, targets in samples}) != 1:
        return None
    inputs, targets = (np.concatenate(rows) for rows in zip(*samples, strict=True))
    # A sample drawn twice would agree with itself in both.
    _, first = np.unique(inputs, axis=0, return_index=True)
    chosen = np.sort(first)[:: -(-len(first) // most)]
    if len(chosen) < _FEWEST_SAMPLES:
        return None
    own, other = _centred(_distances(inputs[chosen])), _centred(_distances(targets[chosen]))
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(chosen)) for _ in range(_NUM_EXCHANGES))
    agreement = float(np.vdot(own, other))
    return all(agreement > float(np.vdot(own, other[np.ix_(order, order)])) for order in orders)


def _is_usable(batch: Any) -> bool:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return False
    if not all(isinstance(part, Tensor) and part.ndim and part.layout == torch.strided for part in batch):
        return False
    return len(batch[-1]) > 0 and len({len(part) for part in batch}) == 1


def _rows(batch: Sequence[Tensor], step: int) -> tuple[Rows, Rows]:
    kept = [part.detach()[::step] for part in batch]
    rows = [part.reshape(len(part), -1)[:, :: _stride(part)].cpu() for part in kept]
    return _array(torch.cat(rows[:-1], 1)), _array(rows[-1])


def _array(rows: Tensor) -> Rows:
    # Half precisions of torch are not known to numpy.
    return rows.double().numpy() if rows.is_floating_point() else rows.numpy()


def _stride(part: Tensor) -> int:
    return max(1, -(-part[0].numel() // _MOST_POSITIONS))


def _distances(values: Rows) -> Array:
    if not np.issubdtype(values.dtype, np.floating):
        return np.stack([(values != row).mean(1) for row in values])
    quantities = np.asarray(values, dtype=np.float64)
    spread = quantities.std(0)
    # Each position counts alike, whatever its unit.
    scaled = (quantities - quantities.mean(0)) / np.where(spread > 0, spread, 1.0)
    squares = np.square(scaled).sum(1)
    distances: Array = np.sqrt(np.maximum(squares + squares[:, None] - 2.0 * scaled @ scaled.T, 0.0))
    return distances


def _centred(distances: Array) -> Array:
    centred: Array = distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()
    return centred
