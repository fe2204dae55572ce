"""Looks at the held-out batches: what they say together, and when another could change nothing."""

import math

import pytest
import torch
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.range_test.looks import HeldOut, Looks
from tests.range_test.tasks import make_task

CLEAR = HeldOut((1.0, 1.1, 1.2), 9.0)
START = HeldOut((2.0, 2.0, 2.0), 0.0)


def test_nothing_is_known_without_held_out_batches():
    looks = Looks()
    assert (looks.improvement(), looks.link(), looks.fall(), looks.grew()) == (None, None, 0.0, False)


def test_of_one_batch_the_fall_is_known_but_not_its_error():
    looks = Looks(HeldOut((2.0,), 0.0), late=[HeldOut((1.5,), 1.0)])
    assert (looks.improvement(), looks.fall()) == (None, 0.25)


def test_the_best_late_look_counts_and_one_that_blew_up_does_not():
    looks = Looks(START, early=[CLEAR], late=[HeldOut((math.inf, 1.0, 1.0), None)])
    assert looks.improvement() == -math.inf
    looks.late.append(HeldOut((1.0, 1.1, 1.2), math.nan))
    assert looks.improvement() == pytest.approx(0.9 * math.sqrt(3.0) / 0.1)
    assert looks.link() == 9.0


@pytest.mark.parametrize(
    ("looks", "early", "late"),
    [
        (Looks(START), False, False),
        (Looks(START, early=[CLEAR]), True, False),
        (Looks(START, late=[CLEAR]), True, True),
        (Looks(START, late=[HeldOut(CLEAR.losses, 4.9)]), False, False),
        (Looks(START, early=[CLEAR], late=[HeldOut((1.9, 2.1, 2.0), 9.0)]), True, False),
        (Looks(HeldOut(START.losses, 8.0), late=[CLEAR]), False, True),  # pretrained: the link was there before
        (Looks(START, late=[HeldOut(CLEAR.losses, None)]), False, False),
    ],
)
def test_only_what_is_past_doubt_ends_the_looks(looks, early, late):
    assert (looks.has_enough_early(), looks.has_enough_late()) == (early, late)


def test_looks_that_are_left_out_change_nothing_but_the_cost(monkeypatch):
    def found():
        model, optimizer, loader = make_task(num_samples=640)
        return cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=100)

    result = found()
    monkeypatch.setattr(Looks, "has_enough_early", lambda self: False)
    monkeypatch.setattr(Looks, "has_enough_late", lambda self: False)
    thorough = found()
    assert result.num_evaluations <= thorough.num_evaluations - 12
    assert (result.max_lr, result.refusal) == (thorough.max_lr, thorough.refusal)
    assert thorough.improvement >= result.improvement >= 5.0


def test_where_nothing_can_be_learned_every_look_is_taken():
    model, optimizer, loader = make_task(num_samples=640)
    inputs, targets = loader.dataset.tensors
    shuffled = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, shuffled), batch_size=32)
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=100)
    assert result.refusal is not None
    assert result.num_evaluations >= 6 * 5
