"""Eight problems where the start matters, one of them a healthy control; small enough for a thousand short runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cyclewise import OneCycle, PolicyLR

Batch = tuple[Tensor, Tensor]
BATCH_SIZE = 64
SHORT_STEPS, LONG_STEPS = 30, 300
MAX_LR = 3e-3


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        name: what it is called.
        make: seed -> model, at the start that is to be improved.
        data: () -> training inputs and targets, held-out ones for the search, and held-out ones for the verdict.
        loss_fn: the loss.
        is_control: whether the start is a good one already.
    """

    name: str
    make: Callable[[int], nn.Module]
    data: Callable[[], tuple[Batch, Batch, Batch]]
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    is_control: bool = False


class LastState(nn.Module):
    """A recurrent network whose answer is read from its last state."""

    def __init__(self, factor: float, width: int = 32) -> None:
        super().__init__()
        self.rnn = nn.RNN(4, width, batch_first=True)
        self.head = nn.Linear(width, 10)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(factor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``[n, 10]`` for inputs ``[n, time, 4]``."""
        states, _ = self.rnn(inputs)
        return self.head(states[:, -1])


def _mlp(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def _scaled(model: nn.Module, gain: float, init: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            if init is not None:
                init(parameter)
            parameter.data.mul_(gain)
        elif init is not None:
            nn.init.zeros_(parameter)
    return model


def _seeded(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def seeded(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    return seeded


def _deep(activation: type[nn.Module], layers: int, width: int = 32) -> nn.Module:
    return _mlp([64, *[width] * layers, 10], activation)


@cache
def _digits() -> tuple[Batch, Batch, Batch]:
    inputs, targets = load_digits(return_X_y=True)
    x, y = torch.tensor(inputs / 16.0 - 0.3, dtype=torch.float32), torch.tensor(targets)
    return _split(x, y)


@cache
def _pixels() -> tuple[Batch, Batch, Batch]:
    parts = _digits()
    return tuple((x, x.clone()) for x, _ in parts)  # type: ignore[return-value]


@cache
def _waves() -> tuple[Batch, Batch, Batch]:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(1500, 2, generator=generator) - 1
    y = torch.sin(8 * x[:, :1]) * torch.cos(6 * x[:, 1:])
    return _split(x, y)


@cache
def _strips() -> tuple[Batch, Batch, Batch]:
    # Each digit as a sequence of 16 strips of 4 pixels. (The adding problem over 20 steps was tried first: no start was
    # found from which 300 steps solve it, so it says nothing about starts.)
    return tuple((x.view(-1, 16, 4), y) for x, y in _digits())  # type: ignore[return-value]


def _split(x: Tensor, y: Tensor) -> tuple[Batch, Batch, Batch]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = int(0.6 * len(x)), int(0.8 * len(x))
    parts = order[:first], order[first:second], order[second:]
    return tuple((x[part], y[part]) for part in parts)  # type: ignore[return-value]


_TANH: Callable[[], nn.Module] = lambda: _deep(nn.Tanh, 10)  # noqa: E731
PROBLEMS = [
    Problem("deep tanh, gain 0.3", _seeded(lambda: _scaled(_TANH(), 0.3, nn.init.xavier_normal_)), _digits,
            nn.functional.cross_entropy),
    Problem("deep tanh, gain 3", _seeded(lambda: _scaled(_TANH(), 3.0, nn.init.xavier_normal_)), _digits,
            nn.functional.cross_entropy),
    Problem("deep relu, torch's own start", _seeded(lambda: _deep(nn.ReLU, 12)), _digits, nn.functional.cross_entropy),
    Problem("rnn, factor 0.8", _seeded(lambda: LastState(0.8)), _strips, nn.functional.cross_entropy),
    Problem("rnn, factor 1.2", _seeded(lambda: LastState(1.2)), _strips, nn.functional.cross_entropy),
    Problem("zero-centred regression", _seeded(lambda: _mlp([2, 48, 48, 1], nn.Tanh)), _waves, nn.functional.mse_loss),
    Problem("saddle start", _seeded(lambda: _scaled(_mlp([64, 24, 8, 24, 64], nn.Tanh), 0.02, nn.init.xavier_normal_)),
            _pixels, nn.functional.mse_loss),
    Problem("healthy He start", _seeded(lambda: _scaled(_mlp([64, 64, 64, 10], nn.ReLU), 1.0, nn.init.kaiming_normal_)),
            _digits, nn.functional.cross_entropy, is_control=True),
]  # fmt: skip


def batches(problem: Problem) -> tuple[list[Batch], list[Batch]]:
    """Return the training batches, and one held-out batch for the search."""
    (x, y), valid, _ = problem.data()
    return list(zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True))[: len(x) // BATCH_SIZE], [valid]


def adam(parameters: object) -> torch.optim.Optimizer:
    """Return the optimizer of all runs."""
    return torch.optim.Adam(parameters, lr=MAX_LR)  # type: ignore[arg-type]


def train(problem: Problem, model: nn.Module, *, num_steps: int, seed: int) -> float:
    """Train `model` by one-cycle and return its loss on the data that no search ever saw; infinity if it diverges."""
    (x, y), _, (test_x, test_y) = problem.data()
    generator = torch.Generator().manual_seed(seed)
    optimizer = adam(model.parameters())
    scheduler = PolicyLR(optimizer, OneCycle(max_lr=MAX_LR, total_steps=num_steps, pct_start=0.25))
    order = torch.randperm(len(x), generator=generator)
    for step in range(num_steps):
        start = step * BATCH_SIZE % len(x)
        if start + BATCH_SIZE > len(x):
            order, start = torch.randperm(len(x), generator=generator), 0
        part = order[start : start + BATCH_SIZE]
        optimizer.zero_grad()
        loss = problem.loss_fn(model(x[part]), y[part])
        if not torch.isfinite(loss):
            return math.inf
        loss.backward()
        optimizer.step()
        if step < num_steps - 1:
            scheduler.step()
    with torch.no_grad():
        return float(problem.loss_fn(model(test_x), test_y))
