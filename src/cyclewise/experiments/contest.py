"""The record of a contest between policies: the same seeds, the same number of steps, several runs each."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.training import History

_STEPS_LABEL = "step (optimizer updates)"


@dataclass(frozen=True)
class Entry:
    """One policy's runs, one per seed.

    Attributes:
        name: what it is called.
        lr: its peak or constant rate.
        histories: what happened, per seed; None for a run that diverged.
    """

    name: str
    lr: float
    histories: tuple[History | None, ...]

    @property
    def num_diverged(self) -> int:
        """Runs whose loss stopped being finite."""
        return sum(history is None for history in self.histories)

    def final(self, metric: str) -> list[float]:
        """Return a metric (or "loss", on validation data) at the end of each run that did not diverge."""
        ends = [history.epochs[-1] for history in self.histories if history is not None and history.epochs]
        return [_score(end.valid_loss if metric == "loss" else end.metrics.get(metric)) for end in ends]

    def mean(self, metric: str) -> float:
        """Return the mean over the runs; NaN if any diverged."""
        return math.nan if self.num_diverged else statistics.fmean(self.final(metric))

    def std_error(self, metric: str) -> float:
        """Return the standard error of the mean over the runs; NaN for a single one, or if any diverged."""
        values = self.final(metric)
        if self.num_diverged or len(values) < 2:
            return math.nan
        return statistics.stdev(values) / math.sqrt(len(values))

    @property
    def num_steps(self) -> int:
        """Steps of a run."""
        return max((history.num_steps for history in self.histories if history is not None), default=0)

    @property
    def seconds(self) -> float:
        """Mean wall-clock time of a run, validation included."""
        times = [sum(epoch.seconds for epoch in history.epochs) for history in self.histories if history is not None]
        return statistics.fmean(times) if times else math.nan


@dataclass(frozen=True)
class Contest:
    """Two policies on the same data, seeds and steps, and the grid that the second one's rate was picked from.

    Attributes:
        challenger: the policy in question.
        baseline: what it is held against.
        grid: the candidates for the baseline, itself among them.
        seeds: the seeds, one run each.
        setting: name and value of everything needed to repeat it.
    """

    challenger: Entry
    baseline: Entry
    grid: tuple[Entry, ...]
    seeds: tuple[int, ...]
    setting: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{entry.name} {_diverged(entry) or _estimate(entry, 'accuracy', scale=100, digits=2) + ' %'}"
            for entry in (self.challenger, self.baseline)
        ]
        spread = "n=1: one seed shows no spread" if self.n == 1 else f"mean ± standard error, n={self.n}"
        return f"accuracy after {self.challenger.num_steps} steps: {', '.join(parts)} ({spread})"

    @property
    def n(self) -> int:
        """Runs per policy."""
        return len(self.seeds)

    def table(self) -> Table:
        """Return accuracy, loss, steps and seconds of both, then of the grid."""
        rest = [entry for entry in self.grid if entry is not self.baseline]
        many = f"Mean ± standard error over n={self.n} seeds {list(self.seeds)}."
        runs = f"One run each, with seed {self.seeds[0]}, which shows no spread." if self.n == 1 else many
        return Table(
            ["policy", "rate", "accuracy (%)", "validation loss", "steps", "seconds"],
            [_row(entry) for entry in (self.challenger, self.baseline, *rest)],
            caption=f"{runs} The best constant rate was picked from its grid by these very results, which favours it.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""

        def plain(entry: Entry) -> dict[str, Any]:
            return {
                "name": entry.name,
                "lr": entry.lr,
                "accuracy": entry.final("accuracy"),
                "loss": entry.final("loss"),
                "num_diverged": entry.num_diverged,
                "steps": entry.num_steps,
                "seconds": entry.seconds,
            }

        return {
            "record": "Contest",
            "version": 1,
            "challenger": plain(self.challenger),
            "baseline": plain(self.baseline),
            "grid": [plain(entry) for entry in self.grid],
            "seeds": list(self.seeds),
            "setting": dict(self.setting),
        }

    def section(self) -> Section:
        """Return this record's part of a report."""
        both = (self.challenger, self.baseline)
        return Section(
            title=f"{self.challenger.name} against the {self.baseline.name}",
            conclusion=f"{str(self)[0].upper()}{str(self)[1:]}.",
            charts=[
                _over_epochs("Accuracy on validation data", "accuracy (%)", both, "accuracy"),
                _over_epochs("Loss on validation data", "loss (validation)", both, "loss"),
                _training_losses(both, self.seeds),
                *_rates(both),
            ],
            tables=[self.table()],
            settings=dict(self.setting),
        )


def _row(entry: Entry) -> list[str]:
    if entry.num_diverged:
        outcome = [_diverged(entry), ""]
    else:
        outcome = [_estimate(entry, "accuracy", scale=100, digits=2), _estimate(entry, "loss", digits=4)]
    return [entry.name, f"{entry.lr:.2g}", *outcome, str(entry.num_steps), f"{entry.seconds:.2f}"]


def _diverged(entry: Entry) -> str:
    return f"{entry.num_diverged} of {len(entry.histories)} diverged" if entry.num_diverged else ""


def _estimate(entry: Entry, metric: str, *, digits: int, scale: float = 1) -> str:
    """Return the mean with its standard error, or alone where a single run shows none."""
    mean, std_error = scale * entry.mean(metric), scale * entry.std_error(metric)
    return f"{mean:.{digits}f}" + ("" if math.isnan(std_error) else f" ± {std_error:.{digits}f}")


def _over_epochs(title: str, y_label: str, entries: Sequence[Entry], metric: str) -> Chart:
    lines = []
    scale = 100.0 if metric == "accuracy" else 1.0
    for entry, role in zip(entries, ("primary", "secondary"), strict=True):
        runs = [history.epochs for history in entry.histories if history is not None]
        if not runs:
            continue
        steps = [epoch.step for epoch in runs[0]]
        scores = [[_score(e.valid_loss if metric == "loss" else e.metrics.get(metric)) for e in run] for run in runs]
        mean = scale * np.mean(scores, axis=0)
        lines.append(Line(f"{entry.name}, mean", steps, mean.tolist(), role=role))  # type: ignore[arg-type]
    return Chart(title, _STEPS_LABEL, y_label, lines, caption="At the end of each epoch; mean over the seeds.")


def _training_losses(entries: Sequence[Entry], seeds: Sequence[int]) -> Chart:
    lines = []
    for entry, role in zip(entries, ("primary", "secondary"), strict=True):
        history = entry.histories[0]
        if history is not None:
            ends = [epoch.step for epoch in history.epochs]
            losses = [epoch.train_loss for epoch in history.epochs]
            lines.append(Line(entry.name, ends, losses, role=role))  # type: ignore[arg-type]
    return Chart("Loss on training data", _STEPS_LABEL, "loss (training, mean of the epoch)", lines,
                 caption=f"The run with seed {seeds[0]}.")  # fmt: skip


def _rates(entries: Sequence[Entry]) -> list[Chart]:
    charts = []
    for title, name in (("Learning rate", "lr"), ("Momentum", "momentum")):
        lines = []
        for entry, role in zip(entries, ("primary", "secondary"), strict=True):
            history = entry.histories[0]
            if history is not None and np.isfinite(getattr(history, name)).any():
                values = getattr(history, name).tolist()
                lines.append(Line(entry.name, list(range(len(values))), values, role=role))  # type: ignore[arg-type]
        if lines:
            charts.append(Chart(title, _STEPS_LABEL, title.lower(), lines))
    return charts


def _score(value: float | None) -> float:
    return math.nan if value is None else value
