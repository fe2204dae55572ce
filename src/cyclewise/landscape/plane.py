"""A slice of the landscape: the loss on a plane through the present point, and the path as it is seen there."""

from collections.abc import Iterable, Sequence
from itertools import chain

from torch import Tensor

from cyclewise.landscape.costs import LOSS_COST
from cyclewise.landscape.measurements import Slice
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.positions import principal_directions

_NUM_POINTS = 7
# Gradient evaluations that a slice takes.
PLANE_COST = _NUM_POINTS**2 * LOSS_COST
_INDEPENDENT = 1e-3
# Of the parameters' length: how far a slice reaches where there is no path to be seen.
_REACH = 0.3
# Of the path's extent: what a slice shows beyond it.
_MARGIN = 0.2
_ORDINALS = ("first", "second")


def slice_through(
    objective: Objective, named: Sequence[tuple[str, Tensor]], path: Sequence[Tensor], *, size: float
) -> Slice | None:
    """Measure the loss on a plane through the present point; None where there are no two independent directions.

    With a path it is the plane of the path's first two principal directions; one position is a direction by itself, and
    the second is then the first of `named`.

    Args:
        objective: the mean loss over the batches.
        named: directions by name, the most interesting first, each [P].
        path: positions from the start on, without the present one, each [P] in double precision.
        size: length of the parameters.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> objective = Objective(model, torch.nn.functional.mse_loss, [(torch.eye(2), torch.zeros(2, 1))])
        >>> path = [torch.tensor([3.0, 1.0]).double(), torch.tensor([1.0, 1.0]).double()]
        >>> plane = slice_through(objective, [], path, size=1.0)
        >>> [round(x**2 + y**2) for x, y in plane.path], round(plane.path_share, 6)
        ([10, 2, 0], 1.0)
    """
    here = objective.flatten(objective.parameters).double()
    along_path: list[tuple[str, Tensor]] = []
    if path:
        directions = principal_directions(path, here)[:2]
        names = [f"the path's {ordinal} direction" for ordinal in _ORDINALS]
        if len(directions) == 1:
            names = ["the way to the start"]
        along_path = list(zip(names, directions, strict=False))
    axes = _axes(chain(along_path, named))
    if len(axes) < 2:
        return None
    (x_name, x_axis), (y_name, y_axis) = axes
    moves = [station - here for station in path]
    points = tuple((float(move @ x_axis), float(move @ y_axis)) for move in moves)
    squares = sum(float(move.square().sum()) for move in moves)
    reach = _REACH * (size or 1.0)
    xs = _places([x for x, _ in points], reach)
    ys = _places([y for _, y in points], reach)
    rows = []
    for y in ys:
        row = []
        for x in xs:
            with objective.moved((x * x_axis + y * y_axis).to(objective.dtype)):
                row.append(objective.loss())
        rows.append(tuple(row))
    return Slice(
        x_name, y_name, xs, ys, tuple(rows),
        path=(*points, (0.0, 0.0)) if points else (),
        path_share=sum(x * x + y * y for x, y in points) / squares if squares else None,
    )  # fmt: skip


def _axes(named: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Return the first two directions that are independent, the second made orthogonal, both of length 1."""
    axes: list[tuple[str, Tensor]] = []
    for name, vector in named:
        rest = vector = vector.double()
        for _, axis in axes:
            rest = rest - axis * (axis @ vector)
        # What is left of a vector that lies in the axis before it is rounding.
        if len(axes) < 2 and float(rest.norm()) > _INDEPENDENT * float(vector.norm()) > 0.0:
            axes.append((name, rest / rest.norm()))
    return axes


def _places(points: Sequence[float], reach: float) -> tuple[float, ...]:
    """Return places on an axis that take in the points and 0; `reach` to both sides where all points are at 0."""
    low, high = min(points, default=0.0), max(points, default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= _INDEPENDENT * reach:
        low, high = -reach, reach
    else:
        low, high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
    return tuple(low + (high - low) * i / (_NUM_POINTS - 1) for i in range(_NUM_POINTS))
