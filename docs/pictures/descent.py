"""Gradient descent with rates that are too low, good and too high: on a parabola, and on digits."""

from functools import cache

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from cyclewise.drawing import Chart, Line
from docs.pictures.digits import digits, network, seeded

WEIGHT_RATES = {"low": 0.1, "high": 1.8, "far too high": 2.1}
RATES = {"too low": 0.01, "good": 0.3, "high": 3.0, "far too high": 8.0}
NUM_EPOCHS = 10


def weights(rate: float, num_steps: int = 8, start: float = -2.0) -> list[float]:
    """Return the weights that gradient descent visits on the loss w²/2, whose gradient is w."""
    visited = [start]
    for _ in range(num_steps):
        visited.append(visited[-1] - rate * visited[-1])
    return visited


@cache
def losses(rate: float, seed: int = 0) -> tuple[float, ...]:
    """Return the loss on all digits before the first and after every epoch of plain SGD, batches of 32."""
    inputs, targets = digits()
    with seeded(seed):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        visited = [cross_entropy(model(inputs), targets).item()]
        for _ in range(NUM_EPOCHS):
            for batch in torch.randperm(len(inputs)).split(32):
                optimizer.zero_grad()
                cross_entropy(model(inputs[batch]), targets[batch]).backward()
                optimizer.step()
            visited.append(cross_entropy(model(inputs), targets).item())
    return tuple(visited)


def charts() -> list[Chart]:
    """Describe the picture."""
    grid = np.linspace(-4.4, 4.4, 201)
    low, high, highest = (np.array(weights(rate)) for rate in WEIGHT_RATES.values())
    lines = [
        Line("the loss, w²/2", grid.tolist(), (grid**2 / 2).tolist(), role="muted"),
        Line("rate 0.1, eight steps", low.tolist(), (low**2 / 2).tolist(), points=True),
        Line("rate 1.8: to and fro, and down", high.tolist(), (high**2 / 2).tolist(), role="secondary"),
        Line("rate 2.1: to and fro, and up", highest.tolist(), (highest**2 / 2).tolist(), role="muted", dashed=True),
    ]
    parabola = Chart("Three rates on one parabola", "weight w", "loss", lines, y_limits=(0.0, 15.0))
    epochs = list(range(NUM_EPOCHS + 1))
    runs = [Line(f"rate {rate:g}: {name}", epochs, losses(rate), role="primary" if name == "good" else "secondary")
            for name, rate in RATES.items()]  # fmt: skip
    return [parabola, Chart("Four rates on digits", "epoch", "loss on the training data", runs, y_limits=(0.0, 4.8))]


def caption() -> str:
    """Say what the picture shows."""
    # Where the high rate ends is chance: weights that differ in the seventh digit end anywhere from 1.3 to 2.4.
    low, good, _, highest = (losses(rate) for rate in RATES.values())
    return (
        f"Four real runs of {NUM_EPOCHS} epochs from the same weights, at a loss of {good[0]:.2f}: too low gets to "
        f"{low[-1]:.2f}, good to {good[-1]:.2f}, high leaps about far above it, and far too high ends at "
        f"{highest[-1]:.2f}, above where it began."
    )
