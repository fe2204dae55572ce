"""Where the parameters have been: a few positions kept while a model is trained, and the plane that shows them best.

Source: Li et al., *Visualizing the Loss Landscape of Neural Nets*, arXiv:1712.09913, section 7: random directions show
next to nothing of a path, since two of them are nearly at right angles to it; the first two principal directions of the
positions, seen from the last one, show most of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.landscape.objective import Objective

_MOST_BYTES = 64 * 2**20
# Of the largest squared distance: what lies below is rounding.
_RESOLUTION = 1e-9


class Positions:
    """Some of the positions of a run, evenly spaced: never more than `most`, whatever its length.

    Each is a copy of the parameters on the CPU. When there are too many, every other one is dropped, and twice as many
    steps lie between two from then on. Models of which that many copies take more than 64 MB leave none.

    Args:
        most: positions to keep, at least 2; or 0 for none.

    Example:
        >>> model, positions = nn.Linear(1, 1), Positions(4)
        >>> for _ in range(9):
        ...     positions.note(model)
        >>> positions.steps, len(positions.path)
        ([2, 4, 6, 8], 4)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._interval = 1
        self._kept: list[tuple[int, dict[str, Tensor]]] = []

    @property
    def steps(self) -> list[int]:
        """After how many steps each position was reached."""
        return [step for step, _ in self._kept]

    @property
    def path(self) -> tuple[dict[str, Tensor], ...]:
        """The positions in order, each the parameters by name."""
        return tuple(position for _, position in self._kept)

    def note(self, model: nn.Module) -> None:
        """Count a step, and keep the position that it has reached if it is one of those."""
        self._count += 1
        if self._most == 0 or self._count % self._interval:
            return
        named = dict(model.named_parameters())
        if self._most * sum(p.numel() * p.element_size() for p in named.values()) > _MOST_BYTES:
            return
        self._kept.append((self._count, {name: p.detach().to("cpu", copy=True) for name, p in named.items()}))
        if len(self._kept) > self._most:
            self._kept = self._kept[1::2]
            self._interval *= 2


def thinned(path: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many positions of a path, every second one of them as often as it takes.

    Example:
        >>> thinned([1, 2, 3, 4, 5, 6], 3)
        [2, 4, 6]
    """
    kept = list(path)
    while len(kept) > most:
        kept = kept[1::2]
    return kept


def position_of(place: Any, objective: Objective, *, name: str) -> Tensor:
    """Return a position as a flat vector in double precision, [P].

    Args:
        place: a model, a state dict (buffers may be missing), or the parameters in the order of ``model.parameters()``.
        objective: of the model whose position it was.
        name: what it is called in messages.

    Raises:
        ArgumentTypeError: it is none of these.
        ArgumentError: it is not of the model's architecture.

    Example:
        >>> objective = Objective(nn.Linear(1, 1), nn.functional.mse_loss, [(torch.ones(1, 1), torch.ones(1, 1))])
        >>> position_of([torch.tensor([[2.0]]), torch.tensor([3.0])], objective, name="path[0]")
        tensor([2., 3.], dtype=torch.float64)
    """
    if isinstance(place, nn.parallel.DistributedDataParallel):
        place = place.module
    every = [own for own, _ in objective.model.named_parameters()]
    if isinstance(place, nn.Module):
        place = dict(place.named_parameters())
    elif isinstance(place, (list, tuple)) and all(isinstance(item, Tensor) for item in place):
        if len(place) != len(every):
            raise ArgumentError(
                f"{name} must have the model's {len(every)} parameters, got {len(place)}; "
                "pass [p.detach().clone() for p in model.parameters()]"
            )
        place = dict(zip(every, place, strict=True))
    if not isinstance(place, Mapping):
        raise ArgumentTypeError(
            f"{name} must be a model, a state dict or a list of parameters, got {describe(place)}; "
            "copy it during training: copy.deepcopy(model.state_dict())"
        )
    parts = []
    for own, parameter in objective.named.items():
        value = place.get(own)
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            got = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "missing"
            raise ArgumentError(
                f"{name} must have the model's parameters, got {own} {got} instead of {tuple(parameter.shape)}; "
                "give both the same architecture"
            )
        parts.append(value.detach().to(objective.device, torch.float64).reshape(-1))
    return torch.cat(parts)


def principal_directions(stations: Sequence[Tensor], here: Tensor) -> list[Tensor]:
    """Return the directions in which some positions lie from `here`, by their share of the squared distances.

    Each is of length 1, and points to where the first position lies. There are fewer of them than positions where these
    lie in fewer directions.

    Args:
        stations: positions, each [P].
        here: the present one, [P].
    """
    moves = torch.stack([station - here for station in stations])  # k x P
    # The Gram matrix of k positions, so that nothing larger than their own P x k numbers is needed.
    values, vectors = torch.linalg.eigh(moves @ moves.T)
    directions = []
    for value, weights in zip(values.flip(0), vectors.T.flip(0), strict=True):
        if not float(value) > _RESOLUTION * float(values[-1]):
            break
        direction = weights @ moves
        direction = direction / direction.norm()
        directions.append(direction if float(direction @ moves[0]) >= 0.0 else -direction)
    return directions
