"""Evaluating a candidate: a new model, the same random numbers for everyone, the objective."""

import functools
import random
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from cyclewise.start.space import Space
from cyclewise.start.variables import Point
from cyclewise.state import Snapshot, preserve, seed_everything, seed_generator

Objective = Callable[[nn.Module], float]
_PRIME = 1_000_003
_DRAWING = (
    DataLoader, torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random
)  # fmt: skip


class Job(NamedTuple):
    """What is to be evaluated.

    Attributes:
        point: a point of the space; None for a re-draw.
        draw: the seed of a re-draw; None for a point.
        repetition: which random numbers it sees; candidates of the same repetition see the same.
        validates: whether the second objective is asked instead of the first.
    """

    point: Point | None = None
    draw: int | None = None
    repetition: int = 0
    validates: bool = False


@dataclass(frozen=True, eq=False)
class Evaluate:
    """The function that workers hold: a job -> what the objective returned.

    Attributes:
        space: makes the candidates.
        objective: what is searched by.
        validate: the second objective.
        redraw: a function seed -> model.
        seed: of the random numbers.
    """

    space: Space
    objective: Objective
    validate: Objective | None
    redraw: Callable[[int], nn.Module] | None
    seed: int

    def __call__(self, job: Job) -> Any:
        """Evaluate one job."""
        function = self.validate if job.validates else self.objective
        assert function is not None
        # All candidates are made from the space's model: whatever writes into it, the next begins where this one did.
        with preserve(self.space.model):
            model = self._model(job)
            self._seed_all(self.random_seed(job))
            return function(model)

    def batch(self, points: Sequence[Point]) -> list[float]:
        """Evaluate the points in one pass, for an objective with ``losses``."""
        with preserve(self.space.model):
            parameters = self.space.stack(points)
            self._seed_all(self.random_seed(Job()))
            losses = self.objective.losses(self.space.model, parameters)  # type: ignore[attr-defined]
            return [float(loss) for loss in losses]

    def random_seed(self, job: Job) -> int:
        """Return the seed of the random numbers that the objective sees."""
        return (self.seed * _PRIME + 2 * job.repetition + job.validates) % 2**63

    def _seed_all(self, seed: int) -> None:
        # Generators that an objective holds, such as a loader's, start at the same place for every candidate too.
        seed_everything(seed)
        for generator in self._generators:
            seed_generator(generator, seed)

    @cached_property
    def _generators(self) -> list[Any]:
        return [g for function in (self.objective, self.validate) for g in generators_in(function)]

    def _model(self, job: Job) -> nn.Module:
        if job.draw is None or self.redraw is None:
            return self.space.candidate(job.point)
        seed_everything(job.draw)
        return self.redraw(job.draw)


def generators_in(function: Any) -> list[Any]:
    """Return the random number generators that a function, its closure, bound arguments or global loaders hold.

    >>> generator = torch.Generator()
    >>> generators_in(functools.partial(print, generator)) == [generator]
    True
    """
    return Snapshot(data=_within(function)).generators()


def _within(item: Any, depth: int = 3) -> list[Any]:
    inner: list[Any] = []
    if isinstance(item, functools.partial):
        inner = [item.func, *item.args, *item.keywords.values()]
    elif isinstance(item, types.MethodType):
        inner = [item.__func__, item.__self__]
    elif isinstance(item, types.FunctionType):
        inner = [_content(cell) for cell in item.__closure__ or ()] + _named_by(item.__code__, item.__globals__)
    return [item, *(found for part in inner if depth for found in _within(part, depth - 1))]


def _named_by(code: types.CodeType, names: dict[str, Any]) -> list[Any]:
    # Of the globals that a function names, those that draw: any other may be as large as the program.
    own = [names.get(name) for name in code.co_names]
    drawing = [item for item in own if isinstance(item, _DRAWING)]
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return drawing + [item for part in inner for item in _named_by(part, names)]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None
