"""From where training began to where the model is: did the first step point the way?

Source: Goodfellow et al., *Deep Learning*, section 8.2.7, *Poor correspondence between local and global structure*: the
direction that lowers the loss most here may not lead to a distant solution, and most of the training time goes into the
length of the way around; Goodfellow et al., arXiv:1412.6544, for the loss on the straight line from start to solution.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cyclewise._validation import describe, whole
from cyclewise.errors import ArgumentTypeError
from cyclewise.landscape.line import State, check_same_shapes, load, losses_on_line, state_of
from cyclewise.landscape.objective import LOSS_COST, Objective
from cyclewise.landscape.paths import read, std_error
from cyclewise.landscape.stillness import converted
from cyclewise.ranks import gathered
from cyclewise.state import preserve


@dataclass(frozen=True)
class Journey:
    """The way from the start of training to the present point.

    Attributes:
        displacement: straight distance, in the norm of the parameters that require a gradient.
        relative_displacement: the same as a share of their length at the start; infinite from zero.
        positions: where on the straight line, from 0.0 (the start) to 1.0 (the present).
        losses: the mean loss over the batches there, in eval mode; infinite where it is not a number.
        height: how far the loss rises above the straight line between its values at the ends.
        height_std_error: its standard error over the batches; None with a single batch.
        std_error: of `hump`, over the batches; None with a single batch.
        angle: in degrees, at the start, between a step down the gradient and the direction to the present point; None
            where one of them is zero. Below 90 it comes nearer.
        angle_at_end: in degrees, at the present point, between a step down the gradient and the direction away from the
            start; None where one of them is zero. Below 90 it goes on in the same direction.
        start_gradient: length of the gradient at the start.
        length: of the path that training took; None where it was not given.
    """

    displacement: float
    relative_displacement: float
    positions: tuple[float, ...]
    losses: tuple[float, ...]
    height: float
    height_std_error: float | None
    std_error: float | None
    angle: float | None
    angle_at_end: float | None
    start_gradient: float
    length: float | None = None

    @property
    def hump(self) -> float:
        """How far the loss on the straight line rises above the higher of its ends; 0.0 where it does not."""
        return max(self.losses) - max(self.losses[0], self.losses[-1])

    @property
    def detour(self) -> float | None:
        """Length of the path over the straight distance, at least 1; None where either is not known, or zero."""
        return None if self.length is None or self.displacement == 0.0 else self.length / self.displacement


def look_back(
    objective: Objective,
    start: nn.Module | Mapping[str, Any],
    *,
    gradient: Tensor | None = None,
    path: Sequence[Tensor] = (),
    num_points: int = 9,
) -> Journey:
    """Compare the model with what it was when training began.

    The loss on the line is that of :func:`~cyclewise.landscape.paths.barrier`: eval mode, batch norm's statistics
    gathered anew, on each rank of a distributed run from its own batches. It costs a third of a gradient evaluation for
    each point, twice that with batch norm, and one more for the gradient at the start.

    Args:
        objective: the mean loss over the batches, at the present point.
        start: the model as it was, or its state dict.
        gradient: of the objective at the present point, [P]; None computes it, for one more gradient evaluation.
        path: positions in between, in order, each [P], for the length of the path.
        num_points: points on the line, both ends included, at least 3.

    Raises:
        ArgumentError: `start` has other names or shapes, or `num_points` is below 3.
        ArgumentTypeError: `start` is neither a module nor a state dict.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.0, 1.0]]))
        >>> batch = torch.eye(2), torch.zeros(2, 1)
        >>> objective = Objective(model, nn.functional.mse_loss, [batch])
        >>> journey = look_back(objective, {"weight": torch.tensor([[3.0, 5.0]])})
        >>> journey.displacement, round(journey.angle, 2), journey.losses[0], journey.losses[-1]
        (5.0, 5.91, 17.0, 0.5)
    """
    num_points = whole("num_points", num_points, minimum=3, way_out="pass for example 9")
    model = objective.model
    now = state_of(model)
    first = start_state(start, objective)
    positions = [i / (num_points - 1) for i in range(num_points)]
    own_dtype = objective.parameters[0].dtype
    batches = [converted(batch, own_dtype if own_dtype.is_floating_point else None) for batch in objective.batches]
    with preserve(model, objective.loss_fn):
        own = losses_on_line(model, objective.loss_fn, batches, first, now, positions)
        rows = [[loss for of_rank in ranks for loss in of_rank] for ranks in zip(*gathered(own), strict=True)]
        has_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        objective.cost += LOSS_COST * num_points * (2 if has_norms else 1)
        load(model, first)
        at_start = Objective(model, objective.loss_fn, objective.batches, dtype=objective.dtype)
        start_gradient = at_start.gradient()
        objective.cost += at_start.cost
    gradient = objective.gradient() if gradient is None else gradient
    line = read(positions, rows)
    move = _flat(objective, now) - _flat(objective, first)
    displacement = float(move.norm())
    start_length = float(_flat(objective, first).norm())
    stations = [_flat(objective, first), *path, _flat(objective, now)]
    return Journey(
        displacement=displacement,
        relative_displacement=displacement / start_length if start_length > 0.0 else math.inf,
        positions=line.positions,
        losses=line.losses,
        height=line.height,
        height_std_error=line.height_std_error,
        std_error=_hump_error(line.losses, rows),
        angle=_angle(-start_gradient, move),
        angle_at_end=_angle(-gradient, move),
        start_gradient=float(start_gradient.double().norm()),
        length=sum(float((b - a).norm()) for a, b in pairwise(stations)) if path else None,
    )


def start_state(start: Any, objective: Objective) -> dict[str, Tensor]:
    """Return the start as parameters and buffers by name, on the model's device.

    Args:
        start: a model or a state dict.
        objective: of the model whose start it is.

    Raises:
        ArgumentTypeError: it is neither a module nor a state dict.
        ArgumentError: it is not of the model's architecture.
    """
    if isinstance(start, nn.parallel.DistributedDataParallel):
        start = start.module
    if isinstance(start, nn.Module):
        start = state_of(start)
    if not isinstance(start, Mapping):
        raise ArgumentTypeError(
            f"start must be a model or a state dict, got {describe(start)}; "
            "copy it before training: copy.deepcopy(model.state_dict())"
        )
    state = {str(key): value.detach() for key, value in start.items() if isinstance(value, Tensor)}
    check_same_shapes(state_of(objective.model), state, names=("model", "start"))
    return {key: value.to(objective.device) for key, value in state.items()}


def _hump_error(losses: Sequence[float], rows: Sequence[Sequence[float]]) -> float | None:
    top = losses.index(max(losses))
    end = 0 if losses[0] >= losses[-1] else -1
    return std_error([above - below for above, below in zip(rows[top], rows[end], strict=True)])


def _flat(objective: Objective, state: State) -> Tensor:
    return torch.cat([state[name].detach().double().reshape(-1) for name in objective.names])


def _angle(first: Tensor, second: Tensor) -> float | None:
    """Return the angle between two directions in degrees."""
    first, second = first.double(), second.double()
    lengths = float(first.norm() * second.norm())
    if not 0.0 < lengths < math.inf:
        return None
    return math.degrees(math.acos(max(-1.0, min(1.0, float(first @ second) / lengths))))
