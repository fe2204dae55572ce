"""A loss that does not repeat itself: refused where that is what hides the fall, and only there."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.range_test.doubt import refuse
from cyclewise.range_test.refusal import Refusal
from tests.range_test.tasks import make_task
from tests.range_test.test_doubt import FALL, FLAT, seen


@pytest.mark.parametrize(
    ("curve", "noise", "expected"),
    [
        (FLAT, None, None),
        (FLAT, 0.0, None),
        (FLAT, 0.01, None),
        (FLAT, 0.05, Refusal.NOISY),
        (FLAT, 5.0, Refusal.NOISY),
        (FALL, 0.05, None),
    ],
)
def test_it_takes_noise_of_the_evaluation_itself_and_no_fall(curve, noise, expected):
    sweeps = seen(curve, gain=3.0, links=(0.0, 4.0))
    sweeps.evaluation_noise = noise
    assert refuse(sweeps, is_bounded=False) is expected
    assert refuse(sweeps, is_bounded=False, is_related=True) is expected


def noisy(spread, generator=None):
    def loss_fn(outputs, targets):
        return F.cross_entropy(outputs, targets) + spread * torch.randn((), generator=generator)

    return loss_fn


@pytest.mark.parametrize("has_own_generator", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_is_noise_for_the_most_part_is_refused(seed, has_own_generator):
    generator = torch.Generator().manual_seed(seed) if has_own_generator else None
    model, optimizer, loader = make_task()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    result = cw.lr_find(model, optimizer, noisy(20.0, generator), loader, seed=seed)
    assert result.refusal is Refusal.NOISY
    assert result.max_lr is None
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_little_noise_is_not_refused():
    model, optimizer, loader = make_task()
    plain = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    result = cw.lr_find(model, optimizer, noisy(0.02), loader)
    assert plain.interval[0] < result.max_lr < plain.interval[1]


def test_the_reason_is_told_with_the_way_out():
    model, optimizer, loader = make_task()
    result = cw.lr_find(model, optimizer, noisy(20.0), loader)
    assert result.refusal.value == "the loss of one and the same batch varies more than any rate lowered it"
    assert result.refusal.remedy == (
        "average each step's loss over more samples or draws: larger batches, accumulation_steps=16, "
        "or a loss that draws more often"
    )
    assert cw.RangeTest.from_dict(result.to_dict()).refusal is Refusal.NOISY


def test_the_way_out_leads_out():
    model, optimizer, loader = make_task(num_samples=640)
    plain = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert cw.lr_find(model, optimizer, noisy(1.5), loader).refusal is Refusal.NOISY
    result = cw.lr_find(model, optimizer, noisy(1.5), loader, accumulation_steps=144)
    assert plain.interval[0] < result.max_lr < plain.interval[1]


def test_only_in_doubt_is_the_loss_evaluated_again():
    model, optimizer, loader = make_task()
    clear = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    doubtful = cw.lr_find(model, optimizer, noisy(20.0), loader)
    assert doubtful.num_evaluations >= clear.num_evaluations + 24
    assert doubtful.num_steps <= 100


def test_of_a_loss_that_repeats_itself_two_scores_are_enough():
    torch.manual_seed(0)
    inputs, labels = torch.randn(640, 10), torch.randint(4, (640,))
    loader = list(zip(inputs.split(32), labels.split(32), strict=True))
    model = nn.Linear(10, 4)
    result = cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, loader)
    assert result.refusal in (Refusal.NO_IMPROVEMENT, Refusal.UNRELATED)
    looks = 1 + 2 + 3  # before training, and in the last two sweeps
    on_the_way = 3 * 8  # as the last sweep sees its samples again
    assert result.num_evaluations <= 5 * looks + on_the_way + 2


def test_held_out_losses_that_are_not_finite_say_nothing():
    model, optimizer, loader = make_task()
    inputs, targets = next(iter(loader))
    result = cw.lr_find(model, optimizer, noisy(20.0), loader, valid_loader=[(inputs * math.nan, targets)] * 2)
    assert result.refusal not in (None, Refusal.NOISY)


def test_dropout_is_no_noise_of_the_loss():
    torch.manual_seed(0)
    model, _, loader = make_task()
    model = nn.Sequential(nn.Dropout(0.5), model)
    result = cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, loader)
    assert result.refusal is not Refusal.NOISY
