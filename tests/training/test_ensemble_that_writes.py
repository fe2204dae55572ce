"""An ensemble whose members write into the batch they are given."""

import torch

import cyclewise as cw
from cyclewise.training.ensemble import Ensemble
from tests.writing import Halving


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
