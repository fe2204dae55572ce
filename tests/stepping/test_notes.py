"""Notes at exceptions of the user's own code."""

import sys

import pytest
import torch
from torch import nn

import cyclewise as cw

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes before Python 3.11")


def test_an_exception_that_is_raised_again_gets_each_note_once():
    error = ValueError("mine")

    def loss_fn(outputs, targets):
        raise error

    model = nn.Linear(3, 2)
    sizes = 8, 8, 4
    for size in sizes:
        with pytest.raises(ValueError, match="mine") as caught:
            cw.diagnose(model, loss_fn, [(torch.ones(size, 3), torch.zeros(size))])
        assert caught.value is error
    assert error.__notes__ == [
        f"raised by loss_fn for outputs torch.float32 of shape ({size}, 2) and targets torch.float32 of shape ({size},)"
        for size in (8, 4)
    ]
