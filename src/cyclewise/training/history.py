"""What happened in training: rate, momentum and loss of every step, losses and metrics of every epoch."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cyclewise._validation import reading_record
from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.errors import ArgumentError
from cyclewise.files import write_file
from cyclewise.landscape import Watched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 1
_STEPS_LABEL = "step (optimizer updates)"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data, or the part of one that a fit ended with.

    Attributes:
        step: steps completed when it ended, counted over all fits.
        train_loss: mean loss of its steps, each before its update.
        valid_loss: loss on the validation data at its end; None without validation.
        metrics: the metrics on the validation data at its end, by name.
        seconds: wall-clock time, validation included.
    """

    step: int
    train_loss: float
    valid_loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become None, `validated` says which there were."""
        return {
            "step": self.step,
            "train_loss": _finite(self.train_loss),
            "valid_loss": _finite(self.valid_loss),
            "validated": self.valid_loss is not None,
            "metrics": {name: _finite(value) for name, value in self.metrics.items()},
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Epoch":
        """Return the epoch that :meth:`to_dict` described."""
        valid_loss = values["valid_loss"]
        return cls(
            step=values["step"],
            train_loss=_number(values["train_loss"]),
            # Records written before this was noted have None for a loss that is not a number, too.
            valid_loss=_number(valid_loss) if values.get("validated", valid_loss is not None) else None,
            metrics={name: _number(value) for name, value in values["metrics"].items()},
            seconds=values["seconds"],
        )


@dataclass(frozen=True, eq=False)
class History:
    """The record of one or several fits; steps are counted over all of them.

    Attributes:
        lr: rate of the fastest group at each step, shape [num_steps].
        momentum: momentum or beta1 at each step, NaN where the policy has none, shape [num_steps].
        loss: loss of each step, before its update, shape [num_steps].
        epochs: the epochs, in order.
        policies: the policy of each fit, as text that can be pasted back.
        watched: what a :class:`~cyclewise.Watch` has measured; None where nobody watched.

    Example:
        >>> history = History(lr=[0.1, 0.1], momentum=[0.9, 0.9], loss=[2.0, 1.5], epochs=(Epoch(2, 1.75, 1.6),))
        >>> print(history)
        2 steps in 1 epoch; train loss 1.75, valid loss 1.6
        >>> History.from_dict(history.to_dict()) == history
        True
    """

    lr: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    momentum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    loss: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    epochs: tuple[Epoch, ...] = ()
    policies: tuple[str, ...] = ()
    watched: Watched | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "loss"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._found() == other._found()

    def __hash__(self) -> int:
        return hash((self.lr.tobytes(), self.loss.tobytes()))

    def _found(self) -> dict[str, Any]:
        # Two equal runs never take equally long.
        return {**self.to_dict(), "epochs": [{**epoch.to_dict(), "seconds": None} for epoch in self.epochs]}

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return len(self.loss)

    def followed_by(self, later: "History") -> "History":
        """Return the record of both, the later one's steps counted on from this one's."""
        shifted = tuple(
            Epoch(epoch.step + self.num_steps, epoch.train_loss, epoch.valid_loss, epoch.metrics, epoch.seconds)
            for epoch in later.epochs
        )
        watched = self.watched
        if watched is not None or later.watched is not None:
            # One that was not watched has no rows, but its steps count.
            watched = (watched or Watched(num_steps=self.num_steps)).followed_by(
                later.watched or Watched(num_steps=later.num_steps)
            )
        return History(
            lr=np.concatenate([self.lr, later.lr]),
            momentum=np.concatenate([self.momentum, later.momentum]),
            loss=np.concatenate([self.loss, later.loss]),
            epochs=self.epochs + shifted,
            policies=self.policies + later.policies,
            watched=watched,
        )

    def __str__(self) -> str:
        text = f"{_count(self.num_steps, 'step')} in {_count(len(self.epochs), 'epoch')}"
        if not self.epochs:
            return text
        last = self.epochs[-1]
        parts = [f"train loss {last.train_loss:.4g}"]
        if last.valid_loss is not None:
            parts.append(f"valid loss {last.valid_loss:.4g}")
        parts += [f"{name} {value:.4g}" for name, value in last.metrics.items()]
        return f"{text}; {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become None."""
        return {
            "record": "History",
            "version": _VERSION,
            "lr": _plain(self.lr),
            "momentum": _plain(self.momentum),
            "loss": _plain(self.loss),
            "policies": list(self.policies),
            "epochs": [epoch.to_dict() for epoch in self.epochs],
            "watched": None if self.watched is None else self.watched.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "History":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no history of this version.
        """
        with reading_record(values, "History", _VERSION):
            return cls(
                lr=_array(values["lr"]),
                momentum=_array(values["momentum"]),
                loss=_array(values["loss"]),
                epochs=tuple(Epoch.from_dict(epoch) for epoch in values["epochs"]),
                policies=tuple(values["policies"]),
                # Records written before there was a watch don't have it.
                watched=None if values.get("watched") is None else Watched.from_dict(values["watched"]),
            )

    def to_csv(self) -> str:
        """Return the steps as comma-separated values: step, lr, momentum, loss, and at an epoch's last step its scores.

        Example:
            >>> print(History(lr=[0.1], momentum=[0.9], loss=[2.0], epochs=(Epoch(1, 2.0, 1.6),)).to_csv())
            step,lr,momentum,loss,epoch,train_loss,valid_loss
            0,0.1,0.9,2.0,1,2.0,1.6
        """
        names = list(dict.fromkeys(name for epoch in self.epochs for name in epoch.metrics))
        ends = {epoch.step - 1: (number, epoch) for number, epoch in enumerate(self.epochs, 1)}
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["step", "lr", "momentum", "loss", "epoch", "train_loss", "valid_loss", *names])
        columns = zip(self.lr.tolist(), self.momentum.tolist(), self.loss.tolist(), strict=True)
        for step, (lr, momentum, loss) in enumerate(columns):
            row: list[Any] = [step, lr, "" if math.isnan(momentum) else momentum, loss]
            if step in ends:
                number, epoch = ends[step]
                row += [number, epoch.train_loss, "" if epoch.valid_loss is None else epoch.valid_loss]
                row += [epoch.metrics.get(name, "") for name in names]
            writer.writerow(row + [""] * (7 + len(names) - len(row)))
        return buffer.getvalue().rstrip("\n")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a file, whole or not at all: JSON for a name in ``.json``, else ``.csv``.

        Raises:
            ArgumentError: the name ends in neither.
            OSError: the file cannot be written.
        """
        target = Path(path)
        if target.suffix not in (".json", ".csv"):
            raise ArgumentError(f"path must end in .json or .csv, got {str(path)!r}; name it for example history.csv")
        text = json.dumps(self.to_dict(), indent=1) if target.suffix == ".json" else self.to_csv()
        write_file(target, f"{text}\n".encode())

    def charts(self) -> list[Chart]:
        """Describe the pictures: losses, rate, what was watched under it, and each metric."""
        charts = [self._loss_chart(), *self.rate_charts()]
        names = dict.fromkeys(name for epoch in self.epochs for name in epoch.metrics)
        for name in names:
            points = [(epoch.step, epoch.metrics[name]) for epoch in self.epochs if name in epoch.metrics]
            line = Line(name, [step for step, _ in points], [value for _, value in points])
            charts.append(
                Chart(f"{name.capitalize()} on validation data", _STEPS_LABEL, f"{name} (validation)", [line])
            )
        return charts

    def rate_charts(self) -> list[Chart]:
        """Describe the pictures of the rate over the steps, and under it of momentum and of what was watched."""
        steps = list(range(self.num_steps))
        charts = [Chart("Learning rate", _STEPS_LABEL, "learning rate", [Line("rate", steps, self.lr.tolist())])]
        if np.isfinite(self.momentum).any():
            line = Line("momentum", steps, self.momentum.tolist())
            charts.append(Chart("Momentum", _STEPS_LABEL, "momentum", [line]))
        return charts if self.watched is None else [*charts, *self.watched.measured_charts()]

    def plot(self) -> "Figure":
        """Draw losses, rate, momentum, what was watched, and metrics over the steps, as a matplotlib figure."""
        from cyclewise.drawing.figure import draw

        return draw(self.charts())

    def section(self) -> Section:
        """Return this record's part of a report."""
        return Section(
            title="Training",
            conclusion=f"{self}." if self.watched is None else f"{self}. {self.watched}.",
            charts=self.charts(),
            tables=(self._table(),) if self.epochs else (),
            settings={
                f"policy {i + 1}" if len(self.policies) > 1 else "policy": p for i, p in enumerate(self.policies)
            },
        )

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _loss_chart(self) -> Chart:
        steps = list(range(self.num_steps))
        lines = [Line("training, each step", steps, self.loss.tolist(), role="muted")]
        if self.epochs:
            ends = [epoch.step for epoch in self.epochs]
            lines.append(Line("training, mean of the epoch", ends, [epoch.train_loss for epoch in self.epochs],
                              role="secondary", dashed=True))  # fmt: skip
        validated = [(epoch.step, epoch.valid_loss) for epoch in self.epochs if epoch.valid_loss is not None]
        if validated:
            lines.append(Line("validation", [step for step, _ in validated], [loss for _, loss in validated]))
        return Chart("Loss", _STEPS_LABEL, "loss", lines)

    def _table(self) -> Table:
        names = list(dict.fromkeys(name for epoch in self.epochs for name in epoch.metrics))
        rows = [
            [
                str(i + 1),
                str(epoch.step),
                f"{epoch.train_loss:.4g}",
                "" if epoch.valid_loss is None else f"{epoch.valid_loss:.4g}",
                *(f"{epoch.metrics[name]:.4g}" if name in epoch.metrics else "" for name in names),
                f"{epoch.seconds:.2f}",
            ]
            for i, epoch in enumerate(self.epochs)
        ]
        return Table(["epoch", "steps", "train loss", "valid loss", *names, "seconds"], rows, caption="Epochs")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [_finite(value) for value in values.tolist()]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([_number(value) for value in values], dtype=np.float64)
