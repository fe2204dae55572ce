"""A Learner for the command line: `cyclewise find examples/mlp.py:make_learner`, then `cyclewise fit …`."""

import torch
from torch import nn

import cyclewise as cw


def make_learner(seed: int) -> cw.Learner:
    """Return a small network on two interleaved spirals."""
    generator = torch.Generator().manual_seed(seed)
    angle = 3.0 * torch.pi * torch.rand(1000, generator=generator).sqrt()
    labels = torch.randint(2, (1000,), generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], dim=1) * (angle * (2.0 * labels - 1.0))[:, None] / 10.0
    data = cw.Data.from_arrays(points + 0.01 * torch.randn(1000, 2, generator=generator), labels, seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return cw.Learner(
        model,
        data,
        optimizer=torch.optim.AdamW(model.parameters()),
        metrics={"accuracy": cw.accuracy},
    )
