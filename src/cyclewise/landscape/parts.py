"""A batch counted and split into parts of its samples: tensors along their first dimension, everything else kept."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def batch_size(batch: Any) -> int | None:
    """Return the number of samples in a batch: the first dimension that all its tensors share; None if they don't.

    Tensors without dimensions do not count; a packed sequence cannot be counted this way.

    Example:
        >>> import torch
        >>> batch_size((torch.zeros(8, 3), torch.zeros(8))), batch_size({"a": torch.zeros(2), "b": torch.zeros(3)})
        (8, None)
    """
    sizes = set(_sizes(batch))
    return sizes.pop() if len(sizes) == 1 else None


def parts_of(batch: Any, num_parts: int) -> list[tuple[Any, int]] | None:
    """Return about equal parts of a batch, in order, each with its number of samples; None if it cannot be split.

    Args:
        batch: as for training.
        num_parts: how many; fewer where there are fewer samples.

    Example:
        >>> import torch
        >>> [(part["x"].tolist(), count) for part, count in parts_of({"x": torch.arange(5), "name": "five"}, 2)]
        [([0, 1], 2), ([2, 3, 4], 3)]
    """
    size = batch_size(batch)
    if size is None or size < 2:
        return None
    num_parts = min(num_parts, size)
    bounds = [i * size // num_parts for i in range(num_parts + 1)]
    return [(_slice(batch, start, end, size), end - start) for start, end in pairwise(bounds)]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch, or in what a module takes or returns, at any depth of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def _sizes(batch: Any) -> Iterator[int]:
    if isinstance(batch, PackedSequence):
        yield -1
        yield -2
    elif isinstance(batch, Tensor):
        if batch.ndim:
            yield len(batch)
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _sizes(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _sizes(value)


def _slice(batch: Any, start: int, end: int, size: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start:end] if batch.ndim else batch
    if isinstance(batch, Mapping):
        values = {key: _slice(value, start, end, size) for key, value in batch.items()}
        return type(batch)(values) if type(batch) is not dict else values  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_slice(value, start, end, size) for value in batch))
    if isinstance(batch, list) and len(batch) == size and not any(isinstance(value, Tensor) for value in batch):
        return batch[start:end]
    if isinstance(batch, (tuple, list)):
        return type(batch)(_slice(value, start, end, size) for value in batch)
    return batch
