"""The data and the network of the pictures that show real runs: scikit-learn's 1,797 digits, on one thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cyclewise as cw


def digits() -> tuple[Tensor, Tensor]:
    """Return the images as rows of 64 numbers around 0, and their classes."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)
    return inputs - inputs.mean(), torch.tensor(labels)


def network() -> nn.Module:
    """Return a network of 2,410 weights, drawn from the global generator."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed`, on one thread, and give generators and threads back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small steps are faster so, and their sums don't depend on the machine's cores
    try:
        with cw.preserve():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def make_learner(seed: int) -> cw.Learner:
    """Return an untrained Learner with momentum 0.9, batches of 32 and a fifth of the digits held out."""
    with seeded(seed):
        data = cw.Data.from_arrays(*digits(), batch_size=32, seed=seed)
        return cw.Learner(network(), data, metrics={"accuracy": cw.accuracy}, progress=False)
