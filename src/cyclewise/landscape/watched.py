"""What was watched during training: a few numbers at some of the steps, and where the edge of stability lies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclewise._validation import reading_record
from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.errors import ArgumentError
from cyclewise.landscape.unavailable import Unavailable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 2
_STEPS_LABEL = "step (optimizer updates)"
# Weight of the past in the averages behind the noise scale: about ten measurements (arXiv:1812.06162, appendix A.1,
# leaves it open).
_SMOOTHING = 0.9
# From here on the sharpness counts as having met its limit: full-batch training hovers just above it
# (arXiv:2103.00065, section 3.1), and a measurement may be some per cent low.
_AT_THE_EDGE = 0.9

_Numbers = NDArray[np.float64]


def _none() -> _Numbers:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Watched:
    """Numbers measured at some steps of a training run: one row per step, NaN for what was not measured there.

    All belong to the same moment: the weights before the update of the step, and the gradient that it is made from.

    Attributes:
        step: the steps, counted from 0, shape [n] as all that follows.
        lr: rate of the fastest group.
        gradient_norm: 2-norm of the gradient, before clipping.
        update_ratio: 2-norm of the update over that of the weights.
        gradient_variance: variance of one sample's gradient, summed over the parameters.
        squared_gradient: unbiased estimate of the squared norm of the gradient without that noise; may be negative.
        curvature: of the loss of the step's batch along its gradient g, g'Hg / g'g.
        sharpness: largest eigenvalue of the Hessian of that loss as the optimizer feels it: preconditioned by Adam and
            its kin, and with weight decay.
        residual: norm of H v - sharpness * v for the unit vector v that was found: an eigenvalue lies within it.
        sharpness_limit: from where on the optimizer would be unstable at this step's rate on a quadratic: for gradient
            descent ``2 / lr``, with momentum ``2 * (1 + momentum) / lr``. NaN where no limit is known.
        num_steps: steps in all, those without a row included.
        num_samples: samples in one update; None where they could not be counted.
        settings: how it was measured.
        unavailable: what could not be had, each with the reason.
        details: what could not be had, each with more about the reason, where there is more to say.

    Example:
        >>> watched = Watched(step=[9, 19], lr=[0.1, 0.1], gradient_norm=[2.0, 1.5], update_ratio=[0.002, 0.001],
        ...                   sharpness=[math.nan, 19.0], sharpness_limit=[20.0, 20.0], num_steps=20)
        >>> print(watched)
        20 steps watched; sharpness 19 of the 20 that the optimizer can stand; at the edge of stability from step 19 to
        19; update ratio 0.001
        >>> Watched.from_dict(watched.to_dict()) == watched
        True
    """

    step: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    lr: _Numbers = field(default_factory=_none)
    gradient_norm: _Numbers = field(default_factory=_none)
    update_ratio: _Numbers = field(default_factory=_none)
    gradient_variance: _Numbers = field(default_factory=_none)
    squared_gradient: _Numbers = field(default_factory=_none)
    curvature: _Numbers = field(default_factory=_none)
    sharpness: _Numbers = field(default_factory=_none)
    residual: _Numbers = field(default_factory=_none)
    sharpness_limit: _Numbers = field(default_factory=_none)
    num_steps: int = 0
    num_samples: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    unavailable: tuple[tuple[str, Unavailable], ...] = ()
    details: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        steps = np.array(self.step, dtype=np.int64)
        steps.flags.writeable = False
        object.__setattr__(self, "step", steps)
        for name in COLUMNS:
            column = np.array(getattr(self, name), dtype=np.float64)
            if not len(column):
                column = np.full(len(steps), math.nan)
            if len(column) != len(steps):
                raise ArgumentError(
                    f"{name} must have one number per step, got {len(column)} for {len(steps)} steps; "
                    "leave it out where nothing was measured"
                )
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watched) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.step.tobytes(), self.gradient_norm.tobytes()))

    def __len__(self) -> int:
        return len(self.step)

    @property
    def noise_scale(self) -> _Numbers:
        """Gradient noise scale at each row, in samples: from averages of variance and squared norm up to there.

        Batches far below it are mostly noise, far above it waste samples. NaN where nothing was measured, or where the
        squared norm without noise is not above 0 yet.

        Source: McCandlish et al., arXiv:1812.06162, section 2.2 and appendix A.1.
        """
        variance = squared = 0.0
        scales = np.full(len(self), math.nan)
        for row in np.flatnonzero(np.isfinite(self.gradient_variance) & np.isfinite(self.squared_gradient)):
            variance = _SMOOTHING * variance + (1.0 - _SMOOTHING) * float(self.gradient_variance[row])
            squared = _SMOOTHING * squared + (1.0 - _SMOOTHING) * float(self.squared_gradient[row])
            if squared > 0.0:
                scales[row] = variance / squared
        return scales

    @property
    def edge_steps(self) -> tuple[int, int] | None:
        """First and last measured step at the edge of stability; None where there is none.

        At the edge: the sharpness is at least 0.9 of its limit (Cohen et al., arXiv:2103.00065).
        """
        rows = np.flatnonzero(self.sharpness >= _AT_THE_EDGE * self.sharpness_limit)
        return (int(self.step[rows[0]]), int(self.step[rows[-1]])) if len(rows) else None

    def followed_by(self, later: "Watched") -> "Watched":
        """Return the record of both, the later one's steps counted on from this one's."""
        columns = {name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in COLUMNS}
        return Watched(
            step=np.concatenate([self.step, later.step + self.num_steps]),
            **columns,
            num_steps=self.num_steps + later.num_steps,
            num_samples=later.num_samples if later.num_samples is not None else self.num_samples,
            settings=later.settings or self.settings,
            unavailable=later.unavailable,
            details=later.details,
        )

    def __str__(self) -> str:
        parts = [f"{self.num_steps} step{'' if self.num_steps == 1 else 's'} watched"]
        sharp = np.flatnonzero(np.isfinite(self.sharpness))
        if len(sharp):
            text = f"sharpness {self.sharpness[sharp[-1]]:.3g}"
            if math.isfinite(self.sharpness_limit[sharp[-1]]):
                text += f" of the {self.sharpness_limit[sharp[-1]]:.3g} that the optimizer can stand"
            parts.append(text)
            edge = self.edge_steps
            if edge is not None:
                parts.append(f"at the edge of stability from step {edge[0]} to {edge[1]}")
        scale = _last(self.noise_scale)
        if scale is not None:
            parts.append(f"gradient noise scale {scale:.3g} samples")
        ratio = _last(self.update_ratio)
        if ratio is not None:
            parts.append(f"update ratio {ratio:.3g}")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what was not measured is None."""
        return {
            "record": "Watched",
            "version": _VERSION,
            "step": self.step.tolist(),
            **{name: [_plain(value) for value in getattr(self, name).tolist()] for name in COLUMNS},
            "num_steps": self.num_steps,
            "num_samples": self.num_samples,
            "settings": dict(self.settings),
            "unavailable": {name: reason.name for name, reason in self.unavailable},
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Watched":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no such record of this version.
        """
        with reading_record(values, "Watched", _VERSION):
            columns = {
                name: np.array([math.nan if value is None else value for value in values[name]], dtype=np.float64)
                for name in COLUMNS
            }
            return cls(
                step=np.array(values["step"], dtype=np.int64),
                **columns,
                num_steps=values["num_steps"],
                num_samples=values["num_samples"],
                settings=tuple(values["settings"].items()),
                unavailable=tuple((name, Unavailable[reason]) for name, reason in values["unavailable"].items()),
                details=tuple(values["details"].items()),
            )

    def charts(self) -> list[Chart]:
        """Describe the pictures: the rate, and under it what was measured."""
        if not len(self):
            return []
        line = Line("rate", self.step.tolist(), self.lr.tolist())
        return [Chart("Learning rate", _STEPS_LABEL, "learning rate", [line]), *self.measured_charts()]

    def measured_charts(self) -> list[Chart]:
        """Describe the pictures of what was measured, without that of the rate."""
        charts = [self._sharpness_chart()]
        for name, title, label, caption in _PLAIN_CHARTS:
            line = self._line(title.lower(), name)
            charts.append(Chart(title, _STEPS_LABEL, label, [line], y_log=True, caption=caption))
        return [chart for chart in charts if any(len(line.x) for line in chart.lines)]

    def plot(self) -> "Figure":
        """Draw the rate, and under it what was measured, as a matplotlib figure.

        Raises:
            ArgumentError: nothing was measured.
        """
        from cyclewise.drawing.figure import draw

        if not len(self):
            raise ArgumentError(f"plot() needs a measurement, got none in {self.num_steps} steps; train on, or watch "
                                "more often, for example every=1")  # fmt: skip
        return draw(self.charts())

    def section(self) -> Section:
        """Return this record's part of a report."""
        details = dict(self.details)
        rows = [[name, details.get(name, str(reason))] for name, reason in self.unavailable]
        return Section(
            title="During training",
            conclusion=f"{self}.",
            charts=self.charts(),
            tables=(Table(["not measured", "why"], rows),) if rows else (),
            settings={name: str(value) for name, value in self.settings},
        )

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _sharpness_chart(self) -> Chart:
        limit = self._line("what the optimizer can stand", "sharpness_limit")
        lines = [
            Line(limit.name, limit.x, limit.y, role="secondary", dashed=True),
            Line("along the gradient", *self._points("curvature"), role="muted"),
            Line("sharpness", *self._points("sharpness"), points=len(self._points("sharpness")[0]) == 1),
        ]
        curves = [value for line in lines[1:] for value in line.y if value > 0.0]
        limits = None
        if not curves:
            lines = []  # a limit alone says no more than the rate
        elif limit.y:
            # Where the rate goes to zero the limit goes to infinity: not what is to be seen.
            limits = 0.5 * min(curves), 4.0 * max(*curves, min(limit.y))
        return Chart(
            "Sharpness against the limit of the optimizer", _STEPS_LABEL, "curvature (log scale)", lines, y_log=True,
            y_limits=limits,
            caption="Where the sharpness meets the dashed line, training is at the edge of stability: a higher rate "
            "makes it flatter or throws it out, a lower one lets it sharpen.",
        )  # fmt: skip

    def _line(self, label: str, name: str) -> Line:
        return Line(label, *self._points(name))

    def _points(self, name: str) -> tuple[list[int], list[float]]:
        values: _Numbers = getattr(self, name)
        known = np.isfinite(values)
        return self.step[known].tolist(), values[known].tolist()


COLUMNS = tuple(
    item.name for item in fields(Watched) if item.name not in ("step", "num_steps", "num_samples", "settings",
                                                              "unavailable", "details")
)  # fmt: skip

_PLAIN_CHARTS = (
    ("gradient_norm", "Gradient norm", "norm (log scale)", "Before clipping."),
    ("update_ratio", "Update over weights", "ratio (log scale)",
     "Length of an update over that of the weights; far above 1e-2 each step rewrites the model, far below 1e-5 it "
     "stands still."),
    ("noise_scale", "Gradient noise scale", "samples (log scale)",
     "Batches far below it are mostly noise, far above it they waste samples."),
)  # fmt: skip


def _last(values: _Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


# Reading a number makes an accelerator wait; so many rows are read together.
_ROWS_PER_READ = 256


class Rows:
    """The rows of a record that grows.

    Args:
        saved: what :meth:`state` returned.

    Example:
        >>> rows = Rows()
        >>> rows.add({"step": 9, "lr": 0.1})
        >>> Rows(rows.state()).columns()["lr"]
        array([0.1])
    """

    def __init__(self, saved: Tensor | None = None) -> None:
        self._new: list[Mapping[str, Any]] = []
        self._table = np.zeros((0, 1 + len(COLUMNS))) if saved is None else saved.cpu().numpy().copy()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row in: "step" and what was measured, by column, as numbers or scalar tensors."""
        self._new.append(row)
        if len(self._new) >= _ROWS_PER_READ:
            self._read()

    def columns(self) -> dict[str, Any]:
        """Return the columns by name, as :class:`Watched` takes them."""
        self._read()
        columns = {name: self._table[:, 1 + i] for i, name in enumerate(COLUMNS)}
        return {"step": self._table[:, 0].astype(np.int64), **columns}

    def state(self) -> Tensor:
        """Return all rows as one tensor, [n, columns]."""
        self._read()
        return torch.from_numpy(self._table.copy())

    def _read(self) -> None:
        if self._new:
            names = ("step", *COLUMNS)
            values = [[float(row.get(name, math.nan)) for name in names] for row in self._new]
            self._table, self._new = np.concatenate([self._table, np.array(values, dtype=np.float64)]), []
