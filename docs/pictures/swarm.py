"""Swarm against local descent: a function of many valleys, as the loss of a model of two numbers."""

from functools import cache

import torch
from torch import Tensor, nn

import cyclewise as cw
from cyclewise.drawing import Chart, Line
from docs.pictures.digits import seeded

START = (3.3, -2.7)
BUDGET = 300
RATE = 0.002


def rastrigin(point: Tensor) -> Tensor:
    """Return Rastrigin's function: a bowl with a valley at every pair of whole numbers, the lowest, 0, at (0, 0)."""
    return (10 + point**2 - 10 * torch.cos(2 * torch.pi * point)).sum()


class Pair(nn.Module):
    """A model of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(START, dtype=torch.float64))

    def forward(self) -> Tensor:
        """Return the loss."""
        return rastrigin(self.point)


def value(model: nn.Module) -> float:
    """Return the loss of a candidate."""
    return float(model().detach())


@cache
def descent(start: tuple[float, ...] = START) -> tuple[list[tuple[float, float]], list[float]]:
    """Return points and losses of gradient descent, as many steps as the swarm has evaluations."""
    model = Pair()
    with torch.no_grad():
        model.point.copy_(torch.tensor(start, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    points, losses = [], []
    for _ in range(BUDGET):
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        x, y = model.point.tolist()
        points.append((x, y))
        losses.append(loss.item())
        optimizer.step()
    return points, losses


@cache
def search(algorithm: str, seed: int = 0) -> cw.StartSearch:
    """Return a search in the square around the start, two sizes of the start wide on each side."""
    with seeded(seed):
        space = cw.FullSpace(Pair(), radius=2.0)
        return cw.search_start(space, value, algorithm=algorithm, budget=BUDGET, seed=seed, progress=False)


def found() -> tuple[float, ...]:
    """Return the point that the swarm found."""
    return tuple(search("PSO").apply_to(Pair()).point.tolist())


def best_so_far(algorithm: str) -> list[float]:
    """Return the lowest loss seen up to each evaluation."""
    best, lowest = [], float("inf")
    for evaluation in search(algorithm).evaluations:
        lowest = min(lowest, evaluation.loss if evaluation.loss is not None else lowest)
        best.append(lowest)
    return best


def charts() -> list[Chart]:
    """Describe the picture."""
    points, losses = descent()
    scale = 2.0 * (sum(x**2 for x in START) / 2) ** 0.5
    swarm = [(START[0] + scale * x, START[1] + scale * y) for x, y in search("PSO").positions]
    counts = list(range(1, BUDGET + 1))
    best = best_so_far("PSO"), best_so_far("RandomSearch")
    return [
        Chart("The lowest loss so far", "evaluation, or step of descent", "loss (log scale)", [
            Line("swarm (PSO)", counts[: len(best[0])], best[0]),
            Line("random points", counts[: len(best[1])], best[1], role="muted"),
            Line("gradient descent", counts, losses, role="secondary"),
        ], y_log=True, y_limits=(0.5, 200.0)),
        Chart("Where they have been", "first number", "second number", [
            Line("swarm", [x for x, _ in swarm], [y for _, y in swarm], points=True),
            Line("gradient descent", [x for x, _ in points], [y for _, y in points], role="secondary"),
            Line("the lowest point", [0.0], [0.0], role="secondary", points=True),
        ]),
    ]  # fmt: skip


def caption() -> str:
    """Say what the picture shows."""
    _, losses = descent()
    _, after = descent(found())
    return (
        f"From ({START[0]:g}, {START[1]:g}), at a loss of {losses[0]:.1f}, gradient descent rests in the next valley "
        f"at {losses[-1]:.1f}. {BUDGET} evaluations by a swarm find {search('PSO').best_loss:.1f}, as many random "
        f"points {search('RandomSearch').best_loss:.1f}; descent from what the swarm found ends at {after[-1]:.2f}."
    )
