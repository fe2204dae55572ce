"""The mean of what several models predict, batch by batch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cyclewise.errors import ArgumentError
from cyclewise.stepping import to_device


class MeanPrediction:
    """The average over members, batch by batch, in double precision on the CPU."""

    def __init__(self, *, is_classifier: bool) -> None:
        self._is_classifier = is_classifier
        self._num_members = 0
        self._sums: list[Tensor] = []
        self._targets: list[Any] = []
        self._dtype = torch.float32

    def add(self, batches: Iterator[tuple[Tensor, Any]]) -> None:
        """Add the outputs of one more member."""
        num_batches = 0
        for outputs, targets in batches:
            self._dtype = torch.promote_types(outputs.dtype, torch.float32)
            wide = outputs.to("cpu").to(torch.promote_types(outputs.dtype, torch.float64))
            # Sums of probabilities are kept as logarithms: a probability that underflows would cost an infinite loss.
            wide = torch.log_softmax(wide, dim=1) if self._is_classifier else wide
            targets = to_device(targets, torch.device("cpu"))
            if self._num_members == 0:
                self._sums.append(wide)
                self._targets.append(targets)
            else:
                self._check_same(num_batches, wide, targets)
                total = self._sums[num_batches]
                self._sums[num_batches] = torch.logaddexp(total, wide) if self._is_classifier else total + wide
            num_batches += 1
        if num_batches != len(self._sums):
            self._refuse(f"{len(self._sums)} batches and then {num_batches}")
        self._num_members += 1

    def batches(self) -> list[tuple[Tensor, Any]]:
        """Return the average and the targets of each batch, in the outputs' precision but at least single."""
        number = torch.tensor(self._num_members, dtype=torch.float64)
        return [
            ((total - number.log() if self._is_classifier else total / number).to(self._dtype), targets)
            for total, targets in zip(self._sums, self._targets, strict=True)
        ]

    def _check_same(self, index: int, outputs: Tensor, targets: Any) -> None:
        if index >= len(self._sums) or outputs.shape != self._sums[index].shape:
            self._refuse("batches of other sizes")
        if isinstance(targets, Tensor) and not torch.equal(targets, self._targets[index]):
            self._refuse("batches with other targets")

    def _refuse(self, what: str) -> None:
        raise ArgumentError(
            f"loader must yield the same batches in every pass, got {what}; pass one that does not shuffle"
        )
