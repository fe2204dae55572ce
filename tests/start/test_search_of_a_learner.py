"""`Learner.search_start`: the short runs train on the batches of the Learner's loader."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

INPUTS = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
BATCHES = [(inputs, inputs.sum(1, keepdim=True)) for inputs in INPUTS.split(10)]


class OneBuffer:
    """Batches that are all written into the same two tensors, as some readers do."""

    def __init__(self):
        self.buffer = tuple(torch.empty_like(part) for part in BATCHES[0])

    def __len__(self):
        return len(BATCHES)

    def __iter__(self):
        for batch in BATCHES:
            for part, values in zip(self.buffer, batch, strict=True):
                part.copy_(values)
            yield self.buffer


def best_loss(train_loader, valid_loader):
    torch.manual_seed(0)
    data = cw.Data(train_loader, valid_loader)
    learn = cw.Learner(nn.Linear(4, 1), data, loss_fn=F.mse_loss)
    return learn.search_start(budget=6, num_steps=8, max_lr=0.05).best_loss


@pytest.mark.parametrize("has_valid", [True, False])
def test_a_loader_that_fills_one_buffer_again_and_again_gives_all_its_batches(has_valid):
    loaders = (OneBuffer(), OneBuffer() if has_valid else None), (BATCHES, BATCHES if has_valid else None)
    assert best_loss(*loaders[0]) == best_loss(*loaders[1])


class Told(Exception):
    pass


@pytest.fixture
def told(monkeypatch):
    lengths = []

    def check_numbers(num_steps, total_steps, *others):
        lengths.append(total_steps)
        raise Told  # what comes then is the range test's own affair

    monkeypatch.setattr("cyclewise.range_test.find.check_numbers", check_numbers)
    return lengths


def learner():
    torch.manual_seed(0)
    return cw.Learner(nn.Linear(4, 1), cw.Data(BATCHES, BATCHES), loss_fn=F.mse_loss)


def test_a_range_test_is_told_how_long_the_short_runs_are(told):
    with pytest.raises(Told):
        learner().search_start(budget=6, num_steps=8)
    with pytest.raises(Told):
        cw.short_run(F.mse_loss, BATCHES, BATCHES, max_lr="each", num_steps=9)(nn.Linear(4, 1))
    assert told == [8, 9]


def test_a_rate_for_short_runs_is_not_kept_for_long_ones():
    learn = learner()
    found = learn.search_start(budget=6, num_steps=8)
    assert found.num_evaluations == 6
    assert learn.range_test is None
    assert learn.calls.state_dict() == learner().calls.state_dict()
