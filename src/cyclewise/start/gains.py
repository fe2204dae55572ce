"""One factor per weight matrix: how large each layer starts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cyclewise._validation import positive
from cyclewise.errors import ArgumentError
from cyclewise.start.space import Space, check_model, matrices, trained
from cyclewise.start.variables import Coordinates, Point


class LayerGains(Space):
    """One log-scaled factor for each trained parameter with at least two dimensions.

    Args:
        model: the model; it is not written to.
        lower: the smallest factor, above 0.
        upper: the largest, above `lower`. The untouched start is factor 1, which lies between them.

    Raises:
        ArgumentError: the range is empty or without 1, or nothing can vary.

    >>> print(LayerGains(nn.Linear(3, 2)).describe())
    one factor for each of 1 weight matrices, 0.1 to 10
    """

    def __init__(self, model: nn.Module, *, lower: float = 0.1, upper: float = 10.0) -> None:
        check_model(model)
        self.lower = positive("lower", lower, way_out="pass the smallest factor, for example 0.1")
        self.upper = positive("upper", upper, way_out="pass the largest factor, for example 10")
        if self.upper <= self.lower:
            raise ArgumentError(f"upper must be above lower={self.lower:g}, got {upper!r}; pass for example 10")
        if not self.lower <= 1 <= self.upper:
            raise ArgumentError(
                f"lower and upper must have 1, the untouched start, between them, got {lower!r} and {upper!r}; "
                "scale the model itself first if all factors are to be on one side"
            )
        self.model = model
        self.names = tuple(matrices(model))
        self._low, self._high = math.log(self.lower), math.log(self.upper)
        self._centre = round(-1 - 2 * self._low / (self._high - self._low), 12) + 0.0
        self.variables = (Coordinates("gains", len(self.names), self._centre),)

    def factors(self, point: Point) -> dict[str, float]:
        """Return the factor of each parameter.

        >>> LayerGains(nn.Linear(3, 2)).factors({"gains": (0.0,)})
        {'weight': 1.0}
        """
        return dict(zip(self.names, self._factors(point).tolist(), strict=True))

    def place(self, model: nn.Module, point: Point) -> None:
        """Multiply."""
        parameters = trained(model)
        for name, factor in self.factors(point).items():
            parameters[name].mul_(factor)

    def stack(self, points: Sequence[Point]) -> dict[str, Tensor]:
        """Return all products at once."""
        factors = torch.stack([self._factors(point) for point in points])
        stacked = {}
        for name, parameter in trained(self.model).items():
            value = parameter.detach()
            if name in self.names:
                column = factors[:, self.names.index(name)].to(value)
                stacked[name] = column.view(-1, *[1] * value.ndim) * value
            else:
                stacked[name] = value.expand(len(points), *value.shape)
        return stacked

    def describe(self) -> str:
        """Return how many factors there are, and their range."""
        return f"one factor for each of {len(self.names)} weight matrices, {self.lower:g} to {self.upper:g}"

    def _factors(self, point: Point) -> Tensor:
        place = torch.tensor(point["gains"], dtype=torch.float64)
        # Counted from the centre, whose factor is then 1 to the last bit.
        return torch.exp((place - self._centre) / 2 * (self._high - self._low))
