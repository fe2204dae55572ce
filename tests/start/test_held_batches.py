"""Batches held for all candidates: models that write into them, loaders that fill one buffer, what is no batch."""

import copy

import pytest
import torch
from torch.nn import functional as F

import cyclewise as cw
from tests.writing import OneBuffer, pair


def scored(objective, model):
    torch.manual_seed(1)
    return objective(copy.deepcopy(model))


OBJECTIVES = {
    "short run": lambda batches: cw.short_run(F.cross_entropy, batches, batches, max_lr=0.1, num_steps=5),
    "loss after": lambda batches: cw.loss_after(F.cross_entropy, batches, batches, lr=0.1, num_steps=5),
    "held-out": lambda batches: cw.HeldOutLoss(F.cross_entropy, batches),
    "balance": lambda batches: cw.GradientBalance(F.cross_entropy, batches),
}


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_same_candidate_has_the_same_value_every_time(make):
    writing, plain, batches = pair()
    before = copy.deepcopy(batches)
    objective = make(batches)
    found = [scored(objective, writing) for _ in range(3)]
    assert found == [scored(objective, plain)] * 3
    assert all(torch.equal(*inputs) for inputs in zip(batches[0], before[0], strict=True))


def test_several_candidates_at_once_leave_the_batches_alone():
    writing, plain, batches = pair()
    stacked = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in writing.named_parameters()}
    for make in (cw.HeldOutLoss, cw.GradientBalance):
        objective = make(F.cross_entropy, batches)
        found = [objective.losses(writing, stacked) for _ in range(2)]
        assert torch.equal(*found)
        assert torch.equal(found[0], objective.losses(plain, stacked))


def test_what_is_held_of_a_loader_that_fills_one_buffer_are_its_batches():
    _, plain, batches = pair()
    for name in ("short run", "loss after"):
        assert scored(OBJECTIVES[name](OneBuffer(batches)), plain) == scored(OBJECTIVES[name](batches), plain)


def test_directions_of_gradients_leave_the_batches_alone():
    writing, plain, batches = pair()
    before = copy.deepcopy(batches)
    spaces = [
        cw.Subspace(model, 2, directions="gradient", loss_fn=F.cross_entropy, batches=batches)
        for model in (writing, plain)
    ]
    assert all(torch.equal(*inputs) for inputs in zip(batches[0], before[0], strict=True))
    found, expected = (space.stack([{"coordinates": (0.5, -0.5)}]) for space in spaces)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_no_batch_is_refused_by_the_name_of_its_loader():
    _, _, batches = pair()
    for name, loaders in (("train_loader", ([1], batches)), ("valid_loader", (batches, [1]))):
        with pytest.raises(cw.ArgumentError) as caught:
            cw.short_run(F.cross_entropy, *loaders, max_lr=0.1)
        assert str(caught.value).startswith(f"{name} must yield batches (inputs, targets) or dicts, got int 1; ")
