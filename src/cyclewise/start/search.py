"""A search by ask and tell: who evaluates the candidates, where, and in what order is the caller's affair."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cyclewise._validation import instance, random_seed, real, whole
from cyclewise.errors import ArgumentError, CheckpointError
from cyclewise.start.algorithms import Algorithm
from cyclewise.start.journal import Event, Journal, write_journal
from cyclewise.start.space import Space
from cyclewise.start.variables import Point, Value

UNTOUCHED = 0


@dataclass(frozen=True)
class Candidate:
    """A point to be evaluated.

    Attributes:
        index: its number, from 0, the untouched start.
        point: where it lies; ``space.candidate(point)`` makes the model.
    """

    index: int
    point: Point


@dataclass(frozen=True)
class Evaluation:
    """What became of a candidate.

    Attributes:
        index, point: of the candidate.
        loss: the objective's value; None while it is not known, and for a candidate that was lost.
        lost: why it was lost; empty where it was not.
    """

    index: int
    point: Point
    loss: float | None = None
    lost: str = ""


class Search:
    """Ask for candidates, tell their losses, as many at a time as suits the caller.

    The first candidate is the untouched start, so that no search ends worse than it began.

    Args:
        space: what may vary.
        algorithm: the name of a Nevergrad optimizer.
        budget: how many candidates will be asked for, the untouched start among them.
        seed: of the algorithm's random numbers.
        num_workers: how many candidates may be asked for before one is told.
        population, omega, phip, phig: for "PSO", see :class:`~cyclewise.start.algorithms.Algorithm`.

    Attributes:
        evaluations: what became of each candidate asked for so far, by index.
        on_event: called with each event, for a journal.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work.
        ArgumentError: an argument has a value that cannot work; an unknown algorithm is told its near names.
        MissingExtraError: Nevergrad is not installed.

    >>> from torch import nn
    >>> from cyclewise.start import LayerGains
    >>> search = Search(LayerGains(nn.Linear(2, 1)), budget=20, seed=0)
    >>> while candidates := search.ask(4):
    ...     for candidate in candidates:
    ...         search.tell(candidate, (candidate.point["gains"][0] - 0.5) ** 2)
    >>> search.best.loss < 0.01
    True
    """

    def __init__(
        self,
        space: Space,
        *,
        algorithm: str = "PSO",
        budget: int,
        seed: int = 0,
        num_workers: int = 1,
        population: int | None = None,
        omega: float | None = None,
        phip: float | None = None,
        phig: float | None = None,
    ) -> None:
        instance("space", space, Space, "a space of starts", way_out="pass for example LayerGains(model)")
        self.space = space
        self.budget = whole("budget", budget, minimum=2, way_out="pass the evaluations to spend, for example 60")
        self.seed = random_seed("seed", seed, way_out="pass a whole number such as 0")
        self._options = {"population": population, "omega": omega, "phip": phip, "phig": phig}
        self.algorithm = Algorithm(
            space.variables,
            algorithm,
            budget=self.budget,
            num_workers=max(1, num_workers),
            seed=self.seed,
            **self._options,  # type: ignore[arg-type]
        )
        self.evaluations: list[Evaluation] = []
        self.on_event: Callable[[Event], None] = lambda event: None
        self._handles: dict[int, Any] = {}
        self._told: set[int] = set()
        self._events: list[Event] = []

    @property
    def header(self) -> dict[str, Any]:
        """What this search is, as plain JSON values."""
        return {
            "version": 1,
            "space": self.space.describe(),
            "start": self.space.checksum(),
            "algorithm": self.algorithm.name,
            "budget": self.budget,
            "seed": self.seed,
            **self._options,
        }

    @property
    def best(self) -> Evaluation | None:
        """The candidate with the lowest loss that was told; None before the first."""
        told = [e for e in self.evaluations if e.loss is not None]
        return min(told, key=lambda e: e.loss if e.loss is not None else 0.0, default=None)

    def ask(self, n: int = 1) -> list[Candidate]:
        """Return up to `n` candidates, fewer where the budget ends; none when it is spent."""
        number = whole("n", n, minimum=1, way_out="pass how many candidates you want")
        candidates: list[Candidate] = []
        with self.algorithm.own_generators():
            while len(candidates) < number and len(self.evaluations) < self.budget:
                index = len(self.evaluations)
                if index == UNTOUCHED:
                    point: dict[str, Value] = self.space.untouched()
                else:
                    self._handles[index], point = self.algorithm.ask()
                self.evaluations.append(Evaluation(index, point))
                self._happened({"asked": index, "point": point})
                candidates.append(Candidate(index, point))
        return candidates

    def tell(self, candidate: Candidate | int, loss: float | None, *, lost: str = "") -> None:
        """Tell the loss of a candidate; None, or a number that is not finite, for one that was lost.

        Raises:
            ArgumentError: the candidate was not asked for, or was told before.
        """
        index = candidate.index if isinstance(candidate, Candidate) else candidate
        if not 0 <= index < len(self.evaluations) or index in self._told:
            raise ArgumentError(
                f"candidate must be one that was asked for and not told yet, got {index}; tell each of them once"
            )
        value, reason = checked_loss(loss)
        self.evaluations[index] = replace(self.evaluations[index], loss=value, lost=lost or reason)
        self._happened({"told": index, "loss": value, "lost": lost or reason})
        self._told.add(index)
        if index == UNTOUCHED:
            self.algorithm.tell_of(self.evaluations[index].point, value)
        else:
            self.algorithm.tell(self._handles.pop(index), value)

    @property
    def outstanding(self) -> list[Candidate]:
        """The candidates that were asked for and not told yet."""
        return [Candidate(e.index, e.point) for e in self.evaluations if e.index not in self._told]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything that happened to a file that :meth:`resume` reads; a file that is there is replaced.

        Raises:
            CheckpointError: it cannot be written.
        """
        target = Path(path)
        write_journal(target, self.header, self._events)
        return target

    @classmethod
    def resume(cls, path: str | os.PathLike[str], space: Space, **arguments: Any) -> "Search":
        """Return the search that :meth:`save` wrote, made again by asking and telling what was asked and told.

        Args:
            path: the file.
            space: the same space.
            arguments: the same arguments as for the search.

        Raises:
            CheckpointError: the file is not there, is damaged, or belongs to another search.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"checkpoint {str(path)!r} must be a file that a search wrote, got none; check it")
        search = cls(space, **arguments)
        with Journal(path, search.header) as journal:
            search.replay(journal.events)
        return search

    def replay(self, events: Iterable[Event]) -> None:
        """Ask and tell what `events` say was asked and told.

        Raises:
            CheckpointError: the algorithm asks for other points than it did, as another release of it may.
        """
        for event in events:
            if "asked" in event:
                candidate = self.ask()[0]
                points = [{k: list(v) if isinstance(v, (tuple, list)) else v for k, v in p.items()}
                          for p in (candidate.point, event["point"])]  # fmt: skip
                if points[0] != points[1]:
                    raise CheckpointError(
                        f"checkpoint holds another point for candidate {candidate.index} than the algorithm asks for; "
                        "it was written with another release of it: delete the file to start again"
                    )
            elif "told" in event:
                self.tell(event["told"], event["loss"], lost=event["lost"])

    def _happened(self, event: Event) -> None:
        self._events.append(event)
        self.on_event(event)


def checked_loss(loss: Any) -> tuple[float | None, str]:
    """Return a finite loss and no reason, or None and why the candidate is lost.

    >>> checked_loss(float("nan")), checked_loss("good")
    ((None, 'the objective returned nan'), (None, "the objective returned 'good'"))
    """
    if loss is None:
        return None, "no loss was told"
    try:
        return real("loss", loss, way_out=""), ""
    except ArgumentError:
        return None, f"the objective returned {loss!r}"
