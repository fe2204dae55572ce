"""A loss with its spread, and how the leaders of a noisy search are compared."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A mean with its standard error.

    Attributes:
        value: the mean.
        std_error: its standard error; None for a single value.
        num_runs: how many values.

    >>> print(Spread.of([1.0, 2.0, 3.0])), print(Spread.of([1.0]))
    2 ± 0.58 (n=3)
    1
    (None, None)
    """

    value: float
    std_error: float | None
    num_runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return mean and standard error of some values."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(statistics.fmean(values), error, len(values))

    def __str__(self) -> str:
        if self.std_error is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ± {self.std_error:.2g} (n={self.num_runs})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"value": self.value, "std_error": self.std_error, "num_runs": self.num_runs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Spread":
        """Return what :meth:`to_dict` described."""
        return cls(values["value"], values["std_error"], values["num_runs"])


def of_repetitions(values: Sequence[float]) -> Spread:
    """Return the spread of a leader's repetitions.

    The first one made it a leader, so it is lower than it should be by luck; where there are others, they alone count.

    >>> print(of_repetitions([0.5, 1.0, 2.0])), print(of_repetitions([0.5]))
    1.5 ± 0.5 (n=2)
    0.5
    (None, None)
    """
    return Spread.of(values[1:] if len(values) > 1 else values)
