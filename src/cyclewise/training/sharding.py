"""This rank's share of the batches of a loader that knows nothing of ranks."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


class EveryNth:
    """Batch i of every round of `num_ranks` batches; a last round that is not complete is left out.

    Args:
        loader: an iterable of batches that gives every rank the same ones in the same order.
        rank: which batch of a round.
        num_ranks: batches per round.

    Example:
        >>> list(EveryNth([0, 1, 2, 3, 4], rank=1, num_ranks=2))
        [1, 3]
    """

    def __init__(self, loader: Any, rank: int, num_ranks: int) -> None:
        self._loader = loader
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        return len(self._loader) // self._num_ranks

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while len(batch_round := list(islice(batches, self._num_ranks))) == self._num_ranks:
            yield batch_round[self._rank]
