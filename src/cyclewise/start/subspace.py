"""A few directions through the initial weights, or all of them: ``theta = theta_0 + sum_i z_i d_i``.

Each direction moves every tensor in proportion to its own size, as in Li et al., arXiv:1804.08838 (random subspaces)
and arXiv:1712.09913 (directions scaled by the weights).
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cyclewise._validation import one_of, positive, random_seed, whole
from cyclewise.copies import copied
from cyclewise.errors import ArgumentError
from cyclewise.mismatch import check_loss_fn
from cyclewise.start.space import Space, check_model, trained
from cyclewise.start.variables import Coordinates, Point
from cyclewise.state import preserve
from cyclewise.stepping import batch_loss, device_of

_LARGEST_FULL_SPACE = 10_000


class _Sum(Space):
    # What a point adds to the weights, one point or many at once.

    def place(self, model: nn.Module, point: Point) -> None:
        """Add the change to each tensor."""
        parameters = trained(model)
        for name, change in self._changes([point]).items():
            parameters[name].add_(change[0])

    def stack(self, points: Sequence[Point]) -> dict[str, Tensor]:
        """Return all sums at once."""
        changes = self._changes(points)
        return {name: parameter.detach() + changes[name] for name, parameter in trained(self.model).items()}

    @abstractmethod
    def _changes(self, points: Sequence[Point]) -> dict[str, Tensor]:
        """Return the changes of all points, by name, each ``[len(points), *shape]``."""


class Subspace(_Sum):
    """Directions through the initial weights.

    Args:
        model: the model; it is not written to.
        size: how many directions.
        directions: "random": drawn anew wherever they are needed, so that they take no memory; "gradient": orthonormal,
            spanned by the gradients of `size` batches, each as large as the model.
        radius: how far the corners reach. With all coordinates at an end of [-1, 1], a tensor moves by about `radius`
            times its own root mean square (one that is zero, by that which its fan-in suggests) in random directions;
            in those of gradients all tensors together do, in the mean square over all numbers, and one that has more
            than its share of the gradient, such as a bias, goes further.
        seed: of the random directions.
        loss_fn: ``loss_fn(outputs, targets)``, for gradients.
        batches: at least `size` batches, for gradients.

    Raises:
        ArgumentError: an argument cannot work, or the gradients span fewer directions.

    >>> space = Subspace(nn.Linear(3, 2), 4)
    >>> print(space.describe())
    4 random directions through the initial weights, up to 1 times their size
    """

    def __init__(
        self,
        model: nn.Module,
        size: int = 10,
        *,
        directions: Literal["random", "gradient"] = "random",
        radius: float = 1.0,
        seed: int = 0,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        batches: Iterable[Any] = (),
    ) -> None:
        check_model(model)
        self.model = model
        self.size = whole("size", size, minimum=1, way_out="pass the number of directions, for example 10")
        self.directions = one_of("directions", directions, ("random", "gradient"))
        self.radius = positive("radius", radius, way_out="1 moves each tensor by as much as its own size")
        self.seed = random_seed("seed", seed, way_out="pass a whole number such as 0")
        self._check_trained()
        self._gradients = _spanned(model, loss_fn, batches, self.size) if directions == "gradient" else None
        self.variables = (Coordinates("coordinates", self.size),)

    def describe(self) -> str:
        """Return how many directions there are, and how far they reach."""
        kind = "random directions" if self.directions == "random" else "directions spanned by gradients"
        return f"{self.size} {kind} through the initial weights, up to {self.radius:g} times their size"

    def checksum(self) -> str:
        """Return the checksum of the model, and the seed of the directions."""
        return super().checksum() if self._gradients is not None else f"{super().checksum()}, seed {self.seed}"

    def _changes(self, points: Sequence[Point]) -> dict[str, Tensor]:
        parameters = trained(self.model)
        length = self.radius / math.sqrt(self.size)
        weights = length * torch.tensor([point["coordinates"] for point in points], dtype=torch.float64)
        changes = {name: p.new_zeros(len(points), *p.shape) for name, p in parameters.items()}
        for i in range(self.size):
            for name, direction in self._direction(i).items():
                column = weights[:, i].to(direction).view(-1, *[1] * direction.ndim)
                changes[name] += column * direction
        return changes

    def _direction(self, index: int) -> dict[str, Tensor]:
        if self._gradients is not None:
            return self._gradients[index]
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) % 2**63)
        return {
            name: scale(p) * torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p)
            for name, p in trained(self.model).items()
        }

    def _check_trained(self) -> None:
        if not trained(self.model):
            raise ArgumentError("model must have trained parameters, got none; unfreeze some layers first")


class FullSpace(_Sum):
    """Every trained number of a small model.

    Args:
        model: the model, of at most 10,000 trained numbers; it is not written to.
        radius: how far each number may move, in root mean squares of its tensor.

    Raises:
        ArgumentError: the model is too large, or nothing can vary.

    >>> print(FullSpace(nn.Linear(3, 2)).describe())
    each of 8 numbers, by up to 1 times the size of its tensor
    """

    def __init__(self, model: nn.Module, *, radius: float = 1.0) -> None:
        check_model(model)
        self.model = model
        self.radius = positive("radius", radius, way_out="1 moves each number by as much as the size of its tensor")
        self.size = sum(parameter.numel() for parameter in trained(model).values())
        if not 1 <= self.size <= _LARGEST_FULL_SPACE:
            raise ArgumentError(
                f"model must have 1 to {_LARGEST_FULL_SPACE:,} trained numbers for a FullSpace, got {self.size:,}; "
                "search some directions with Subspace(model), or factors with LayerGains(model)"
            )
        self.variables = (Coordinates("coordinates", self.size),)

    def describe(self) -> str:
        """Return how many numbers vary, and how far."""
        return f"each of {self.size:,} numbers, by up to {self.radius:g} times the size of its tensor"

    def _changes(self, points: Sequence[Point]) -> dict[str, Tensor]:
        places = self.radius * torch.tensor([point["coordinates"] for point in points], dtype=torch.float64)
        changes, first = {}, 0
        for name, parameter in trained(self.model).items():
            part = places[:, first : first + parameter.numel()]
            changes[name] = scale(parameter) * part.reshape(len(points), *parameter.shape).to(parameter)
            first += parameter.numel()
        return changes


def scale(parameter: Tensor) -> float:
    """Return the root mean square of a tensor; for one that is zero, the usual one at its fan-in.

    >>> scale(torch.tensor([3.0, -3.0])), scale(torch.zeros(5, 4))
    (3.0, 0.5)
    """
    size = float(parameter.detach().double().square().mean().sqrt())
    if size > 0:
        return size
    fan_in = parameter[0].numel() if parameter.ndim >= 2 else parameter.numel()
    return 1 / math.sqrt(max(1, fan_in))


def _spanned(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor] | None, batches: Iterable[Any], size: int
) -> list[dict[str, Tensor]]:
    if loss_fn is None:
        raise ArgumentError("loss_fn must be given for directions spanned by gradients, got None; pass the loss")
    check_loss_fn(loss_fn)
    parameters = trained(model)
    vectors: list[Tensor] = []
    scales = torch.cat([torch.full((p.numel(),), scale(p), dtype=torch.float64) for p in parameters.values()])
    with preserve(model):
        for batch in batches:
            gradients = torch.autograd.grad(
                batch_loss(model, loss_fn, copied(batch, device_of(model))),
                list(parameters.values()),
                allow_unused=True,
            )
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).detach().reshape(-1).double().cpu()
                    for p, g in zip(parameters.values(), gradients, strict=True)
                ]
            )
            # In units of each tensor's own size, so that a step of length 1 means the same everywhere.
            vector = flat * scales
            for _ in range(2):  # twice is enough: the second pass removes what rounding left of the first
                for other in vectors:
                    vector = vector - (vector @ other) * other
            norm = vector.norm()
            if norm > 1e-9 * (flat * scales).norm() and norm > 0:
                vectors.append(vector / norm)
            if len(vectors) == size:
                break
    if len(vectors) < size:
        raise ArgumentError(
            f"batches must span {size} directions, got {len(vectors)} independent gradients; "
            "pass more batches or a smaller size"
        )
    root = math.sqrt(sum(p.numel() for p in parameters.values()))
    directions = []
    for vector in vectors:
        parts = torch.split(root * scales * vector, [p.numel() for p in parameters.values()])
        directions.append(
            {name: part.reshape(p.shape).to(p) for (name, p), part in zip(parameters.items(), parts, strict=True)}
        )
    return directions
