"""A cliff: twenty multiplications by one weight, one step that catapults it, and the same step clipped."""

import torch
from torch import nn

from cyclewise.drawing import Chart, Line

NUM_FACTORS = 20
START, RATE, MAX_NORM = 1.12, 0.01, 1.0


def loss_at(weight: torch.Tensor) -> torch.Tensor:
    """Return the squared error of a state multiplied by `weight` twenty times, which should become 1/2."""
    return (weight**NUM_FACTORS - 0.5) ** 2


def descend(max_norm: float | None, num_steps: int = 40) -> tuple[list[float], list[float]]:
    """Return weights and losses, before each step, of gradient descent with or without clipping."""
    weight = torch.tensor([START], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=RATE)
    weights, losses = [], []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = loss_at(weight).sum()
        loss.backward()
        weights.append(weight.item())
        losses.append(loss.item())
        if max_norm is not None:
            nn.utils.clip_grad_norm_([weight], max_norm)
        optimizer.step()
    return weights, losses


def gradient_at_start() -> float:
    """Return the gradient where the descent begins."""
    weight = torch.tensor([START], dtype=torch.float64, requires_grad=True)
    loss_at(weight).sum().backward()
    assert weight.grad is not None
    return float(weight.grad)


def charts() -> list[Chart]:
    """Describe the picture."""
    grid = torch.linspace(0.6, 1.13, 107, dtype=torch.float64)
    weights, losses = descend(MAX_NORM)
    _, free = descend(None, num_steps=2)
    cliff = [
        Line("the loss", grid.tolist(), loss_at(grid).tolist(), role="muted"),
        Line("steps clipped to a gradient of 1", weights, losses, points=True),
    ]
    descents = [
        Line("clipped", list(range(len(losses))), losses),
        Line("not clipped", list(range(len(free))), free, role="secondary"),
    ]
    return [
        Chart("The cliff", "weight", "loss", cliff),
        Chart("Two descents from the same weight", "step", "loss (log scale)", descents, y_log=True,
              y_limits=(1e-5, 1e12)),
    ]  # fmt: skip


def caption() -> str:
    """Say what the picture shows."""
    weights, losses = descend(MAX_NORM)
    free, _ = descend(None)
    return (
        f"At a weight of {START} the gradient is {gradient_at_start():.0f}. At a rate of {RATE:g} one free step throws "
        f"the weight to {free[1]:.1f}; clipped to 1, it walks down to {weights[15]:.2f} in 15 steps, and the loss from "
        f"{losses[0]:.0f} to {losses[15]:.4f}."
    )
