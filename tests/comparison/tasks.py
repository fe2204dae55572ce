"""Small tasks that workers can import."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import cyclewise as cw


def make_learner(seed: int) -> cw.Learner:
    inputs = torch.randn(120, 4)
    targets = (inputs[:, 0] * inputs[:, 1] > 0).long()
    data = cw.Data.from_arrays(inputs, targets, batch_size=24, seed=seed)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    return cw.Learner(model, data, metrics={"accuracy": cw.accuracy})


def constant(lr: float, total_steps: int = 12) -> cw.Constant:
    return cw.Constant(lr=lr, total_steps=total_steps)


class Counting:
    """Counts how often a Learner is made, across processes: one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, seed: int) -> cw.Learner:
        print("noise from the user's own code")
        taken = len(list(Path(self.folder).iterdir()))
        (Path(self.folder) / f"{seed}-{os.getpid()}-{taken}").touch()
        return make_learner(seed)


class Broken(Counting):
    """Raises at seed 3."""

    def __call__(self, seed: int) -> cw.Learner:
        learn = super().__call__(seed)
        if seed == 3:
            raise LookupError("no such data")
        return learn


class Killing(Counting):
    """Kills its process at the fourth call, of all that were ever made."""

    def __call__(self, seed: int) -> cw.Learner:
        learn = super().__call__(seed)
        if len(list(Path(self.folder).iterdir())) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn


TWO = {"low": constant(0.001), "high": constant(0.3)}


def local(policies=TWO, make=make_learner, **options):
    options = {"seeds": range(3), "metric": "loss", "baseline": "low", "engine": "local", **options}
    return cw.compare(policies, make, **options)


@contextmanager
def raises(kind, message):
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == message
