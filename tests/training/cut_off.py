"""A small run that can be cut off at any step, and what of it is compared afterwards."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import cyclewise as cw

SAMPLES = 70  # batches of 16: the last one of an epoch is smaller


def arrays():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


class Augmented(Dataset):
    """Draws from all the global generators, and from one of its own."""

    def __init__(self):
        self.inputs, self.targets = arrays()
        self.own = np.random.default_rng(3)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item() + self.own.random()
        return self.inputs[index] + 0.1 * noise, self.targets[index]


LOADERS = {
    "arrays": lambda: cw.Data.from_arrays(*arrays(), batch_size=16, seed=5),
    "loader": lambda: cw.Data(DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True)),
    "own generator": lambda: cw.Data(
        DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1))
    ),
    "augmented": lambda: cw.Data(
        DataLoader(Augmented(), batch_size=16, shuffle=True), DataLoader(Augmented(), batch_size=16)
    ),
    "workers": lambda: cw.Data(
        DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True, num_workers=1, multiprocessing_context="fork")
    ),
    "list": lambda: cw.Data([(x, y) for x, y in zip(*(part.split(16) for part in arrays()), strict=True)]),
}


def make_learner(loader="arrays", **options):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return cw.Learner(model, LOADERS[loader](), optimizer=optimizer, progress=False, **options)


def bits(learn):
    return {name: value.clone() for name, value in learn.model.state_dict().items()}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def records(history):
    values = history.to_dict()
    for epoch in values["epochs"]:
        del epoch["seconds"]
    return values


class Dies(Exception):
    pass


class DieAt(cw.Callback):
    """Ends the fit as a crash would, after the callbacks before it have seen the step."""

    def __init__(self, step=None):
        self.step = step

    def on_step_end(self, learner, step, loss):
        if learner.num_steps == self.step:
            raise Dies


class Quiet(cw.Callback):
    """Stands where `DieAt` stood, so that the callbacks are the same ones."""


Quiet.__name__ = "DieAt"
