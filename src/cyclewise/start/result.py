"""The record of a search: the start that was found, what it is better than, and how sure that is."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from cyclewise._validation import reading_record
from cyclewise.drawing import Section
from cyclewise.errors import ArgumentError, CheckpointError
from cyclewise.files import write_file
from cyclewise.start.missing import Missing, StopReason
from cyclewise.start.search import Evaluation
from cyclewise.start.space import set_values
from cyclewise.start.spread import Spread
from cyclewise.start.variables import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 1
_SPREADS = ("best", "baseline", "redraw", "best_validation", "baseline_validation", "redraw_validation")
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class StartSearch:
    """What a search for a starting point found.

    Losses are values of the objective, lower is better. Where the objective is noisy, the untouched start and the
    leaders were evaluated again with other random numbers, and their losses are means over these repetitions alone: the
    first evaluation, which made a leader lead, is too low by luck.

    Attributes:
        best: loss of the start that was found; the untouched one where none was better.
        baseline: loss of the untouched start; None where it was lost.
        redraw: loss of the best of `budget` random re-draws.
        best_validation, baseline_validation, redraw_validation: the three by the second objective, which the search
            never saw.
        unavailable: attribute name -> why it is None.
        point: where the found start lies in the space.
        num_evaluations: calls of the objective, at most the budget; re-draws and validation are not counted.
        num_lost: candidates whose objective raised, returned no finite number, or whose worker died.
        stop_reason: why it ended.
        algorithm, population, note: the optimizer, the particles of a swarm, and what was set otherwise than its
            library does.
        evaluations: every candidate in the order in which it was asked for.
        positions: where each candidate lies, as numbers in [-1, 1].
        settings: the arguments.

    Example:
        >>> from cyclewise.start import LayerGains, search_start
        >>> model = nn.Linear(3, 1, bias=False)
        >>> found = search_start(LayerGains(model), lambda m: float((m.weight.detach().norm() - 1) ** 2), budget=30)
        >>> found.best_loss < found.baseline_loss, found.num_evaluations
        (True, 30)
        >>> 0.8 < float(found.apply_to(model).weight.detach().norm()) < 1.2
        True
    """

    best: Spread
    baseline: Spread | None
    point: Point
    num_evaluations: int
    num_lost: int
    stop_reason: StopReason
    algorithm: str
    population: int | None = None
    note: str = ""
    redraw: Spread | None = None
    best_validation: Spread | None = None
    baseline_validation: Spread | None = None
    redraw_validation: Spread | None = None
    unavailable: Mapping[str, Missing] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    positions: tuple[tuple[float, ...], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StartSearch) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.best, self.baseline, self.num_evaluations, self.algorithm))

    @property
    def best_loss(self) -> float:
        """Loss of the start that :meth:`apply_to` sets."""
        return self.best.value

    @property
    def baseline_loss(self) -> float | None:
        """Loss of the untouched start."""
        return None if self.baseline is None else self.baseline.value

    @property
    def redraw_loss(self) -> float | None:
        """Loss of the best re-draw."""
        return None if self.redraw is None else self.redraw.value

    @property
    def is_untouched(self) -> bool:
        """Whether no candidate was better than the start as it was."""
        return bool(self.evaluations) and dict(self.point) == dict(self.evaluations[0].point)

    def apply_to(self, model: Module) -> Module:
        """Write the found start into `model`, parameters and buffers, in place; gradients and modes stay.

        Returns:
            The same model, so that ``Learner(found.apply_to(model), data)`` is one line.

        Raises:
            ArgumentError: the model has other tensors, or this record was read from JSON and has no weights.
        """
        if self.values is None:
            raise ArgumentError(
                "this record must hold weights to be applied, got one made from plain values; use what search_start "
                "returned, StartSearch.load(path) of one that was saved, or space.candidate(record.point)"
            )
        set_values(model, self.values)
        return model

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write record and weights to a file that :meth:`load` reads; whole or not at all.

        Raises:
            CheckpointError: the file cannot be written.
        """
        import torch

        target = Path(path)
        # By way of memory: torch, writing to a full disk itself, does not say that it is full.
        payload = io.BytesIO()
        torch.save({"record": self.to_dict(), "values": dict(self.values or {})}, payload)
        try:
            write_file(target, payload.getbuffer())
        except OSError as error:
            raise CheckpointError(
                f"path must be a place that can be written to, got {os.fspath(path)!r} ({error.strerror}); "
                "pass another path, or make room, and call it again"
            ) from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "StartSearch":
        """Return the record, with its weights, that :meth:`save` wrote.

        Raises:
            CheckpointError: the file cannot be read.
        """
        import torch

        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            record, values = stored["record"], stored["values"]
        except Exception as error:
            raise CheckpointError(
                f"path must be a file that StartSearch.save wrote, got {os.fspath(path)!r} "
                f"({type(error).__name__}: {error}); check it"
            ) from error
        return cls._from(record, values or None)

    def __str__(self) -> str:
        parts = [f"loss {self.best}"]
        if self.is_untouched:
            parts = [f"no start better than the untouched one, loss {self.best}"]
        elif self.baseline is not None:
            parts.append(f"untouched {self.baseline}")
        if self.redraw is not None:
            parts.append(f"best re-draw {self.redraw}")
        lost = f", {self.num_lost} lost" if self.num_lost else ""
        parts.append(f"{self.num_evaluations} evaluations by {self.algorithm}{lost}")
        return "; ".join([*parts, f"stopped: {self.stop_reason.value}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the weights are not among them."""
        spreads = {name: getattr(self, name) for name in _SPREADS}
        return {
            "record": "StartSearch",
            "version": _VERSION,
            **{name: None if spread is None else spread.to_dict() for name, spread in spreads.items()},
            "best_loss": self.best_loss,
            "baseline_loss": self.baseline_loss,
            "redraw_loss": self.redraw_loss,
            "unavailable": {name: reason.name for name, reason in self.unavailable.items()},
            "point": _plain(self.point),
            "num_evaluations": self.num_evaluations,
            "num_lost": self.num_lost,
            "stop_reason": self.stop_reason.name,
            "algorithm": self.algorithm,
            "population": self.population,
            "note": self.note,
            "evaluations": [
                {"index": e.index, "point": _plain(e.point), "loss": e.loss, "lost": e.lost} for e in self.evaluations
            ],
            "positions": [list(position) for position in self.positions],
            "settings": dict(self.settings),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StartSearch":
        """Return the record that :meth:`to_dict` described, without weights.

        Raises:
            ArgumentError: the values describe no search of this version.
        """
        return cls._from(values, None)

    @classmethod
    def _from(cls, values: Mapping[str, Any], weights: Mapping[str, Tensor] | None) -> "StartSearch":
        with reading_record(values, "StartSearch", _VERSION):
            spreads = {name: None if values[name] is None else Spread.from_dict(values[name]) for name in _SPREADS}
            return cls(
                **spreads,  # type: ignore[arg-type]
                unavailable={name: Missing[reason] for name, reason in values["unavailable"].items()},
                point=_point(values["point"]),
                num_evaluations=values["num_evaluations"],
                num_lost=values["num_lost"],
                stop_reason=StopReason[values["stop_reason"]],
                algorithm=values["algorithm"],
                population=values["population"],
                note=values["note"],
                evaluations=tuple(
                    Evaluation(e["index"], _point(e["point"]), e["loss"], e["lost"]) for e in values["evaluations"]
                ),
                positions=tuple(tuple(position) for position in values["positions"]),
                settings=values["settings"],
                values=weights,
            )

    def section(self) -> Section:
        """Return this record's part of a report."""
        from cyclewise.start.pictures import section

        return section(self)

    def plot(self) -> "Figure":
        """Draw loss over evaluations and the spread of the candidates, as a matplotlib figure."""
        from cyclewise.drawing.figure import draw
        from cyclewise.start.pictures import charts

        return draw(charts(self))

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())


def _plain(point: Point) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in point.items()}


def _point(values: Mapping[str, Any]) -> Point:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
