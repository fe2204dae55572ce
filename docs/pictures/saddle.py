"""A saddle: slow at a low rate, crossed at once by a raised one."""

from functools import cache

import torch

import cyclewise as cw
from cyclewise.drawing import Chart, Line

NUM_STEPS = 600
POLICIES = {
    "constant": cw.Constant(lr=0.02, total_steps=NUM_STEPS),
    "cycle": cw.Cyclical(base_lr=0.02, max_lr=0.4, step_size_up=100, total_steps=NUM_STEPS),
}


def height(point: torch.Tensor) -> torch.Tensor:
    """Return x²/2 - y²/2 + y⁴/4: a saddle at (0, 0), minima of -1/4 at (0, 1) and (0, -1)."""
    x, y = point
    return x**2 / 2 - y**2 / 2 + y**4 / 4


@cache
def heights(name: str) -> tuple[float, ...]:
    """Return the loss before every step of gradient descent by a policy, from a point beside the saddle's ridge."""
    point = torch.tensor([1.0, 1e-4], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([point], lr=1.0)
    scheduler = cw.PolicyLR(optimizer, POLICIES[name])
    visited = []
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = height(point)
        loss.backward()
        visited.append(loss.item())
        optimizer.step()
        scheduler.step()
    return tuple(visited)


def steps_to_leave(name: str) -> int:
    """Return the first step at which half of the way down from the saddle to a minimum is done."""
    return next(step for step, loss in enumerate(heights(name)) if loss < -0.125)


def charts() -> list[Chart]:
    """Describe the picture."""
    steps = list(range(NUM_STEPS))
    names = [("cycle", "rate from 0.02 to 0.4 and back", "primary"), ("constant", "constant rate 0.02", "secondary")]
    losses = [Line(label, steps, heights(name), role=role) for name, label, role in names]
    rates = [Line(label, steps, POLICIES[name].lr(steps).tolist(), role=role) for name, label, role in names]
    x_label = "step (optimizer updates)"
    return [
        Chart("The loss beside a saddle", x_label, "loss", losses, y_limits=(-0.27, 0.3)),
        Chart("The rate", x_label, "learning rate", rates, y_limits=(0.0, 0.6)),
    ]


def caption() -> str:
    """Say what the picture shows."""
    return (
        f"The raised rate has left the saddle after {steps_to_leave('cycle')} steps, the constant one after "
        f"{steps_to_leave('constant')}. The flat stretch looks like an end of training, and is none."
    )
