"""Batches kept in memory, so that every sweep sees the same ones whatever the loader does."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from cyclewise.copies import copied
from cyclewise.loaders import Batches

# No more than so many bytes, but never fewer batches than this.
_MOST_BYTES = 2 * 2**30
_FEWEST_KEPT = 16


def keep(loader: Any, wanted: int, *, name: str = "train_loader") -> tuple[list[Any], bool]:
    """Return up to `wanted` batches of one pass, fewer where they would take too much memory, and whether it ended.

    Whoever may write into a batch is to be given a copy of it. The loader must be restored by a snapshot afterwards.
    """
    kept: list[Any] = []
    size = 0
    ended = True
    # Any other loader may fill one buffer again and again.
    has_its_own = isinstance(loader, Sequence)
    for batch in islice(Batches(loader, name=name).one_pass(), wanted):
        kept.append(batch if has_its_own else copied(batch))
        size += _bytes(batch)
        if size > _MOST_BYTES and len(kept) >= _FEWEST_KEPT:
            ended = False
            break
    return kept, ended and len(kept) < wanted


def num_samples(batch: Any) -> int | None:
    """Return the length of a batch's last tensor; None where it has none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else ()
    return next((count for part in reversed(list(parts)) if (count := num_samples(part)) is not None), None)


def _bytes(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.nbytes
    if isinstance(batch, (tuple, list)):
        return sum(map(_bytes, batch))
    return sum(map(_bytes, batch.values())) if isinstance(batch, dict) else 0
