"""An ensemble whose members write into the batch they are given."""

import torch
from torch import nn

import cyclewise as cw
from cyclewise.training.ensemble import Ensemble


class Halving(nn.Module):
    """Halve the inputs, in place or not, before a linear layer."""

    def __init__(self, *, in_place):
        super().__init__()
        self.in_place = in_place
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.head(inputs.mul_(0.5) if self.in_place else inputs * 0.5)


def test_every_member_sees_the_same_inputs():
    torch.manual_seed(0)
    batches = [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(2)]
    before = batches[0][0].clone()
    states = [Halving(in_place=True).state_dict() for _ in range(3)]
    writing, plain = (
        Ensemble(Halving(in_place=in_place), states, cw.Data(batches, batches)) for in_place in (True, False)
    )
    found = writing.predict(), writing.evaluate()
    assert torch.equal(batches[0][0], before)
    expected = plain.predict(), plain.evaluate()
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
