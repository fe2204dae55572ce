"""Notes at exceptions of the user's own code."""

import re
import sys
from functools import partial

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


def test_an_exception_that_takes_no_notes_passes_unchanged():
    class Closed(ValueError):
        def add_note(self, text):
            raise RuntimeError("no notes")

    error = Closed()

    def loss_fn(outputs, targets):
        raise error

    with pytest.raises(Closed) as caught:
        cw.diagnose(nn.Linear(3, 2), loss_fn, [(torch.ones(8, 3), torch.zeros(8))])
    assert caught.value is error


def test_an_error_on_the_way_through_a_sweep_names_its_rate_and_one_at_the_start_does_not():
    model = nn.Linear(3, 1)
    batches = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(i)), torch.zeros(8, 1)) for i in range(20)]

    def loss_fn(outputs, targets, limit):
        if outputs.abs().max() > limit:
            raise ValueError("out of range")
        return nn.functional.mse_loss(outputs, targets)

    notes = []
    for limit in (4.0, 0.0):
        with pytest.raises(ValueError, match="out of range") as caught:
            cw.lr_find(model, torch.optim.SGD(model.parameters(), lr=0.1), partial(loss_fn, limit=limit), batches)
        notes.append([note for note in caught.value.__notes__ if "sweep" in note])
    assert re.fullmatch(
        r"raised at step \d+ of a sweep, lr=[\d.e+-]+; where it is the rate's doing, pass end_lr=", notes[0][0]
    )
    assert notes[1] == []
