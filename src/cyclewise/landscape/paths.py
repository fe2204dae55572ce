"""Two solutions and what lies between them: are they one minimum or two, and is one of them better?

Source: linear interpolation between solutions (Goodfellow et al., arXiv:1412.6544); the height of the barrier and the
2 % below which two solutions count as connected (Frankle et al., *Linear Mode Connectivity*, arXiv:1912.05671, section
2). The straight line is one path of many: two solutions that it separates may be connected by a curved one
(arXiv:1802.10026), so "distinct" means that averaging their weights is no solution, while averaging their predictions
is worth a try.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from cyclewise._validation import instance, reading_record, whole
from cyclewise.drawing import Chart, Line, Mark, Section
from cyclewise.landscape.line import check_same_shapes, losses_on_line, state_of
from cyclewise.landscape.objective import listed
from cyclewise.mismatch import check_loss_fn
from cyclewise.ranks import gathered
from cyclewise.state import preserve
from cyclewise.stepping import LossFunction, device_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 1
# Of the ends' mean loss: a lower rise does not count as a barrier.
_LEAST_SHARE = 0.02
_STD_ERRORS = 2.0


@dataclass(frozen=True)
class Barrier:
    """The loss on the straight line between two models.

    Attributes:
        positions: where on the line, from 0.0 (`model_a`) to 1.0 (`model_b`).
        losses: the mean loss over the batches there, the two ends included; infinite where it is not a number.
        height: how far the loss rises above the straight line between the ends' losses, 0.0 where it does not.
        height_std_error: its standard error over the batches; None with a single batch.
        position: where it does; None where it does not.
        difference: loss of `model_b` minus loss of `model_a`.
        difference_std_error: its standard error over the batches; None with a single batch.
        num_batches: the batches that the losses are means over.

    Example:
        >>> barrier = Barrier((0.0, 0.5, 1.0), (0.1, 0.9, 0.12), 0.79, 0.05, 0.5, 0.02, 0.03, 8)
        >>> print(barrier)
        barrier of 0.79 ± 0.05 at 0.5 between losses 0.1 and 0.12: distinct minima of the same loss
        >>> Barrier.from_dict(barrier.to_dict()) == barrier
        True
    """

    positions: tuple[float, ...]
    losses: tuple[float, ...]
    height: float
    height_std_error: float | None
    position: float | None
    difference: float
    difference_std_error: float | None
    num_batches: int

    @property
    def distinct(self) -> bool:
        """Whether a barrier separates the two: above its noise, and above 2 % of the ends' mean loss."""
        least = _LEAST_SHARE * (abs(self.losses[0]) + abs(self.losses[-1])) / 2.0
        return self.height > max(least, _STD_ERRORS * (self.height_std_error or 0.0))

    @property
    def same_loss(self) -> bool | None:
        """Whether the ends' losses agree within the batches' noise; None where a single batch cannot tell."""
        if self.difference == 0.0:
            return True
        if self.difference_std_error is None or not math.isfinite(self.difference):
            return None
        return abs(self.difference) <= _STD_ERRORS * self.difference_std_error

    def __str__(self) -> str:
        error = "" if self.height_std_error is None else f" ± {self.height_std_error:.2g}"
        place = "no barrier" if self.position is None else f"barrier of {self.height:.3g}{error} at {self.position:.2g}"
        return f"{place} between losses {self.losses[0]:.3g} and {self.losses[-1]:.3g}: {self._verdict()}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a number that is not finite becomes None."""
        return {
            "record": "Barrier",
            "version": _VERSION,
            "positions": list(self.positions),
            "losses": [_finite(loss) for loss in self.losses],
            "height": _finite(self.height),
            "height_std_error": _finite(self.height_std_error),
            "position": self.position,
            "difference": _finite(self.difference),
            "difference_std_error": _finite(self.difference_std_error),
            "num_batches": self.num_batches,
            "distinct": self.distinct,
            "same_loss": self.same_loss,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Barrier":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no barrier of this version.
        """
        with reading_record(values, "Barrier", _VERSION):
            losses = tuple(math.inf if loss is None else loss for loss in values["losses"])
            return cls(
                positions=tuple(values["positions"]),
                losses=losses,
                height=math.inf if values["height"] is None else values["height"],
                height_std_error=values["height_std_error"],
                position=values["position"],
                difference=_difference(losses) if values["difference"] is None else values["difference"],
                difference_std_error=values["difference_std_error"],
                num_batches=values["num_batches"],
            )

    def charts(self) -> list[Chart]:
        """Describe the picture: the loss on the line, and the straight line between the ends."""
        straight = Line(
            "straight between the ends", [0.0, 1.0], [self.losses[0], self.losses[-1]], "muted", dashed=True
        )
        return [
            Chart(
                title="Loss on the line between two models",
                x_label="position on the line (0: model_a, 1: model_b)",
                y_label="loss (mean over the batches)",
                lines=[straight, Line("loss", list(self.positions), list(self.losses))],
                marks=() if self.position is None else (Mark(f"{self.height:.2g} higher", self.position),),
                caption="A hill between the ends means two minima; without one, both lie in the same valley.",
            )
        ]

    def plot(self) -> "Figure":
        """Draw the loss on the line as a matplotlib figure."""
        from cyclewise.drawing.figure import draw

        return draw(self.charts())

    def section(self) -> Section:
        """Return this record's part of a report."""
        return Section(
            title="Between two solutions",
            conclusion=f"{self}. {self._advice()}",
            charts=self.charts(),
            settings={"points": str(len(self.positions)), "batches": str(self.num_batches)},
        )

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _verdict(self) -> str:
        same = self.same_loss
        losses = "" if same is None else " of the same loss" if same else " of different losses"
        return f"distinct minima{losses}" if self.distinct else f"one valley, two points{losses}"

    def _advice(self) -> str:
        if not self.distinct:
            return "Averaging their weights (snapshots, weight averaging) stays in the valley."
        if self.same_loss is False:
            return "Keep the better one; where the start decides, search several starts."
        return "Their weights cannot be averaged; an ensemble averages their predictions instead."


def barrier(
    model_a: nn.Module,
    model_b: nn.Module,
    loss_fn: LossFunction | None,
    batches: Any,
    *,
    num_points: int = 21,
) -> Barrier:
    """Measure the loss on the straight line between two models of one architecture.

    Both models are left as they are. The loss is taken in eval mode; batch norm gathers its statistics anew from the
    batches at every point, where the two models' own differ. It costs `num_points` forward passes over the batches,
    twice that with batch norm. In a distributed run each rank gives its own batches, and all get the barrier over all.

    Args:
        model_a: one solution; it runs the forward passes.
        model_b: another one.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None takes ``output.loss`` for dict batches.
        batches: a list of batches or a loader; at least two for standard errors.
        num_points: points on the line, both ends included, at least 3.

    Raises:
        ArgumentError: the models differ in the names or shapes of their parameters, or `num_points` is below 3.
        ArgumentTypeError: a model is no module, `loss_fn` is no function, or `batches` can be iterated only once.

    Example:
        >>> import torch
        >>> class Well(nn.Module):  # two minima, at -1 and 1
        ...     def __init__(self, place):
        ...         super().__init__()
        ...         self.place = nn.Parameter(torch.tensor([place]))
        ...
        ...     def forward(self, scale):
        ...         return scale * (self.place**2 - 1.0) ** 2
        >>> batches = [(torch.ones(4, 1), torch.zeros(4, 1)), (torch.ones(4, 1), torch.zeros(4, 1))]
        >>> print(barrier(Well(-1.0), Well(1.0), torch.nn.functional.l1_loss, batches))
        barrier of 1 ± 0 at 0.5 between losses 0 and 0: distinct minima of the same loss
    """
    for name, model in (("model_a", model_a), ("model_b", model_b)):
        instance(name, model, nn.Module, "a torch.nn.Module", way_out="pass the two models that are to be compared")
    check_loss_fn(loss_fn)
    whole("num_points", num_points, minimum=3, way_out="pass for example 21")
    device = device_of(model_a)
    with preserve(model_a, model_b, loss_fn, data=[batches]):
        first, second = state_of(model_a), state_of(model_b)
        check_same_shapes(first, second, names=("model_a", "model_b"))
        second = {name: value.to(device) for name, value in second.items()}
        placed = listed(batches, device)
        positions = [i / (num_points - 1) for i in range(num_points)]
        losses = losses_on_line(model_a, loss_fn, placed, first, second, positions)
    shares = gathered(losses)
    return read(positions, [[loss for share in shares for loss in share[i]] for i in range(num_points)])


def read(positions: Sequence[float], losses: Sequence[Sequence[float]]) -> Barrier:
    """Return the record of losses measured on a line: pure.

    Args:
        positions: from 0.0 to 1.0.
        losses: of each batch at each position, [num_positions][num_batches].

    Example:
        >>> read([0.0, 0.5, 1.0], [[1.0], [5.0], [2.0]]).height
        3.5
    """
    rows = [[loss if math.isfinite(loss) else math.inf for loss in row] for row in losses]
    means = tuple(_mean(row) for row in rows)
    excess = [mean - _straight(means[0], means[-1], position) for position, mean in zip(positions, means, strict=True)]
    excess = [0.0 if math.isnan(value) else value for value in excess]
    top = max(range(len(excess)), key=excess.__getitem__)
    if excess[top] <= _resolution(means):
        top = 0
    ends = list(zip(rows[0], rows[-1], strict=True))
    above = [loss - _straight(*end, positions[top]) for loss, end in zip(rows[top], ends, strict=True)]
    return Barrier(
        positions=tuple(positions),
        losses=means,
        height=excess[top] if top else 0.0,
        height_std_error=std_error(above),
        position=positions[top] if top else None,
        difference=_difference(means),
        difference_std_error=std_error([b - a for a, b in ends]),
        num_batches=len(rows[0]),
    )


def std_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean; None for fewer than two values, or one that is not finite.

    Example:
        >>> std_error([1.0, 3.0]), std_error([1.0])
        (1.0, None)
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _straight(first: float, second: float, position: float) -> float:
    return first if first == second else (1.0 - position) * first + position * second


def _resolution(means: Sequence[float]) -> float:
    """Return what rounding in single precision can make of a line without a barrier."""
    return 1e-6 * max((abs(mean) for mean in (means[0], means[-1]) if math.isfinite(mean)), default=0.0)


def _difference(losses: Sequence[float]) -> float:
    return 0.0 if losses[0] == losses[-1] else losses[-1] - losses[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
