"""A model that writes into the batch it is given, and a loader that fills one buffer again and again."""

import torch
from torch import nn


class Halving(nn.Module):
    """Halve the inputs, in place or not, before a small network."""

    def __init__(self, *, in_place):
        super().__init__()
        self.in_place = in_place
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, inputs):
        return self.body(inputs.mul_(0.5) if self.in_place else inputs * 0.5)


class OneBuffer:
    """A loader that fills the same two tensors for every batch."""

    def __init__(self, batches):
        self._batches = batches
        self._inputs, self._targets = (torch.empty_like(item) for item in batches[0])

    def __iter__(self):
        for inputs, targets in self._batches:
            yield self._inputs.copy_(inputs), self._targets.copy_(targets)


def pair():
    """Return the model that writes, the same one that does not, and batches."""
    torch.manual_seed(0)
    writing = Halving(in_place=True)
    plain = Halving(in_place=False)
    plain.load_state_dict(writing.state_dict())
    return writing, plain, [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(3)]
