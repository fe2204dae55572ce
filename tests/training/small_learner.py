"""A Learner for a small task and its weights, for the tests of what it can do besides the plain loop."""

import torch
from torch import nn

import cyclewise as cw


def arrays(n=96):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def make_learner(*, data=None, model=None, **options):
    torch.manual_seed(0)
    if model is None:
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    options.setdefault("optimizer", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    options.setdefault("progress", False)
    return cw.Learner(model, cw.Data.from_arrays(*arrays(), batch_size=16) if data is None else data, **options)


def weights(learn):
    return [parameter.detach().clone() for parameter in learn.model.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


CONSTANT = cw.Constant(lr=0.1, total_steps=10)


def grouped(**options):
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 2))
    return make_learner(model=model, layer_groups=[[model[0], model[1]], [model[3]], [model[4]]], **options)
