"""The curve of one sweep: rate and loss, step by step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclewise.errors import ArgumentError
from cyclewise.range_test import readings


@dataclass(frozen=True, eq=False)
class Curve:
    """Rate and loss of the same step, step by step.

    Attributes:
        lr: rate of the fastest group used in each step, shape [num_steps].
        loss: loss of each step, before its update, shape [num_steps]; the last one may not be finite.
    """

    lr: NDArray[np.float64]
    loss: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("lr", "loss"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.lr.ndim != 1 or self.lr.shape != self.loss.shape:
            raise ArgumentError(
                f"loss must be one number for each of the rates in lr, got shapes {self.loss.shape} and "
                f"{self.lr.shape}; pass two lists of the same length"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is to be read-only too.
        return Curve, (self.lr, self.loss)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Curve):
            return NotImplemented
        return np.array_equal(self.lr, other.lr) and np.array_equal(self.loss, other.loss, equal_nan=True)

    def __hash__(self) -> int:
        return hash((self.lr.tobytes(), self.loss.tobytes()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a loss that is not finite becomes None."""
        return {"lr": self.lr.tolist(), "loss": [finite(loss) for loss in self.loss.tolist()]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Curve":
        """Return the curve that :meth:`to_dict` described."""
        return cls(values["lr"], np.array([math.nan if loss is None else loss for loss in values["loss"]]))

    def usable(self) -> "Curve":
        """Return the part before the first loss that is not finite."""
        is_finite = np.isfinite(self.loss)
        end = len(is_finite) if is_finite.all() else int(np.argmin(is_finite))
        return Curve(self.lr[:end], self.loss[:end])

    def read(self) -> readings.Reading | None:
        """Return what the usable part says; None where it is too short to be read."""
        usable = self.usable()
        return readings.read(usable.lr, usable.loss) if len(usable.lr) >= readings.FEWEST_POINTS else None


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None
