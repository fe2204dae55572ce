"""Networks, batches and a loop of one's own, for the tests of the watch."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

EVERY_STEP = {"every": 1, "noise_every": 1, "sharpness_every": 1}


def batches(n, size=16, *, generator=None):
    generator = generator or torch.Generator().manual_seed(7)
    inputs = torch.randn(n, size, 6, generator=generator)
    return [(x, (x[:, 0] > 0).long()) for x in inputs]


class OwnGenerator(nn.Module):
    """Draws from all global generators and one of its own, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)
        self.num_calls = 0

    def forward(self, x):
        self.num_calls += 1
        noise = torch.randn(x.shape, generator=self.generator) + torch.rand(()) + random.random() + np.random.rand()
        return x + 0.01 * noise + 0.001 * self.num_calls


def network():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), OwnGenerator(), nn.Tanh(), nn.Dropout(0.2),
                         nn.Linear(16, 2))  # fmt: skip


def train(model, optimizer, data, *, watch=None, accumulation_steps=1, autocast=False, clip=None):
    def loss_of(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return F.cross_entropy(model(x), y)

    if watch is not None:
        watch.start(model, optimizer, F.cross_entropy, autocast_dtype=torch.bfloat16 if autocast else None)
    for i in range(0, len(data), accumulation_steps):
        group = data[i : i + accumulation_steps]
        optimizer.zero_grad()
        for x, y in group:
            (loss_of(x, y) / len(group)).backward()
        if watch is not None:
            watch.step(*group)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    if watch is not None:
        watch.stop()
    everything = [
        t.clone() for t in (*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None))
    ]
    return everything, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)


def same(one, other):
    return (
        all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
        and torch.equal(one[1], other[1])
        and one[2:] == other[2:]
    )
