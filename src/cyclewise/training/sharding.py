"""This rank's share of the batches of a loader that knows nothing of ranks."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


class EveryNth:
    """Batch i of every round of `num_ranks` batches.

    Args:
        loader: an iterable of batches that gives every rank the same ones in the same order.
        rank: which batch of a round.
        num_ranks: batches per round.
        is_even: leave a last round out that is not complete, so that all ranks have as many batches.

    Example:
        >>> list(EveryNth([0, 1, 2, 3, 4], rank=0, num_ranks=2, is_even=True))
        [0, 2]
        >>> list(EveryNth([0, 1, 2, 3, 4], rank=0, num_ranks=2, is_even=False))
        [0, 2, 4]
    """

    def __init__(self, loader: Any, rank: int, num_ranks: int, *, is_even: bool) -> None:
        self._loader = loader
        self._rank = rank
        self._num_ranks = num_ranks
        self._is_even = is_even

    def __len__(self) -> int:
        rounds, rest = divmod(len(self._loader), self._num_ranks)
        return rounds + (not self._is_even and self._rank < rest)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while batch_round := list(islice(batches, self._num_ranks)):
            if len(batch_round) == self._num_ranks or (not self._is_even and self._rank < len(batch_round)):
                yield batch_round[self._rank]
