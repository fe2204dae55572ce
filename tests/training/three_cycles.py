"""A fit of three cycles with a snapshot at the end of each, for the tests of snapshots and ensembles."""

import torch
from torch import nn

import cyclewise as cw
from cyclewise.training.snapshots import Snapshots

POLICY = cw.SGDR(max_lr=0.1, T_0=4, T_mult=2, num_cycles=3)


def arrays(n=100):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] + 0.5 * torch.randn(n, generator=generator) > 0).long()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def data(batch_size=16):
    return cw.Data.from_arrays(*arrays(), batch_size=batch_size, seed=0)


def fitted(directory=None, model=None):
    learn = cw.Learner(plain() if model is None else model, data(), progress=False)
    snapshots = Snapshots(POLICY.cycle_ends, directory=directory)
    learn.fit(POLICY, callbacks=[snapshots])
    return learn, snapshots


def valid_arrays(loader):
    batches = [(inputs, targets) for inputs, targets in loader]
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches])
