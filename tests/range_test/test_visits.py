"""Samples learned by heart at each visit: how high a rate may be that a run pays many visits at."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.pace import pace_of
from cyclewise.range_test.sweep import Sweeps
from cyclewise.range_test.visits import Visits

START = [0.995, 1.0, 1.005]


def sweep(gap, *, fall=0.5, num_steps=40, rate=0.01, noise=0.0, start=START, dropout=0.0, **options):
    """A sweep at one rate whose loss falls in a straight line, lower by `gap` on batches that were trained on.

    The loss in training is higher by `dropout`.
    """
    visits = Visits(num_steps, start=start, **{"steps_in_pass": 40, **options})
    generator = np.random.default_rng(0)
    scored = []

    def level(step):
        return 1.0 - fall * step / num_steps

    def score(now, steps):
        scored.append(len(steps))
        return [level(now + 1) - gap * (step <= now) + noise * generator.standard_normal() for step in steps]

    for now in range(num_steps):
        loss = level(now) + dropout + noise * generator.standard_normal()
        visits.update(rate, loss, partial(score, now))
    visits.scored = scored
    return visits


def test_a_run_may_learn_by_heart_a_share_of_the_fall():
    # 0.1 at a rate of 0.01, so 10 per rate and visit; 400 steps are ten visits at half of the peak on average.
    fall = 0.5 * 38.5 / 40
    assert sweep(0.1).highest_rate(400) == pytest.approx(0.3 * fall / (10.0 * 10 * 0.5), rel=0.1)
    assert sweep(0.2).highest_rate(400) == pytest.approx(sweep(0.1).highest_rate(800), rel=0.1)
    assert sweep(0.1).highest_rate(None) == sweep(0.1).highest_rate(250)


def test_a_sweep_that_has_hardly_fallen_does_not_say_how_far_a_run_will():
    # A gap of 0.1 at a rate of 0.01, an eighth of a loss of 1 for the fall, ten visits.
    assert sweep(0.1, fall=0.05).highest_rate(400) == pytest.approx(0.3 * 0.125 / (10.0 * 10 * 0.5), rel=0.02)


@pytest.mark.parametrize(
    ("visits", "why"),
    [
        (sweep(0.0, noise=0.1), "no gap"),
        (sweep(0.05), "a gap of a tenth of the fall"),
        (sweep(-0.1), "those that were seen are worse"),
        (sweep(0.1, start=[0.97, 1.0, 1.03]), "batches differ by a third of that before training"),
        (sweep(0.1, fall=-0.5), "nothing falls"),
        (sweep(0.1, num_steps=4), "no batch was both seen and followed"),
        (sweep(math.nan), "not finite"),
    ],
)
def test_without_a_sign_no_rate_is_too_high(visits, why):
    assert visits.highest_rate(400) == math.inf, why


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_loss_that_is_lost_at_the_end_takes_nothing_back(end):
    def score(now, loss, steps):
        return [loss - (0.2 if step <= now else 0.0125) for step in steps]

    def bound(losses):
        visits = Visits(40, start=START, steps_in_pass=40)
        for now, loss in enumerate(losses):
            visits.update(0.01, loss, partial(score, now, loss))
        return visits.highest_rate(400)

    falls = [1.0 - 0.0125 * step for step in range(40)]
    assert bound([*falls[:-1], end]) == pytest.approx(bound(falls), rel=0.1)
    assert bound(falls) < 1.0


def test_a_gap_that_batches_differ_by_anyway_is_none():
    alike = [1.0, 1.0, 1.0]
    assert sweep(0.3, start=alike, noise=0.02).highest_rate(400) < math.inf
    assert sweep(0.3, start=alike, noise=0.3).highest_rate(400) == math.inf


def test_without_losses_before_training_those_of_the_first_steps_are_taken():
    assert sweep(0.2, start=None).highest_rate(400) == pytest.approx(sweep(0.2).highest_rate(400), rel=0.1)


def test_samples_that_were_seen_again_say_more_than_one_visit():
    class Bound:
        def __init__(self, rate):
            self.highest_rate = lambda total_steps: rate

    def highest(course, visits):
        return Sweeps(course=course, visits=visits).highest_rate(400)

    assert highest(Bound(0.2), Bound(0.1)) == 0.2
    assert highest(Bound(math.inf), Bound(0.1)) == highest(None, Bound(0.1)) == 0.1
    assert highest(None, None) == highest(Bound(math.inf), None) == math.inf


def test_a_run_of_less_than_a_pass_sees_nothing_again():
    assert sweep(0.1, steps_in_pass=400).highest_rate(400) == math.inf
    assert sweep(0.1, steps_in_pass=400).highest_rate(401) < math.inf


def test_where_there_is_no_gap_few_looks_are_enough():
    assert sweep(0.0, fall=0.1, num_steps=60).scored == [3, 3, 3, 2]
    assert len(sweep(0.1, num_steps=60).scored) == 12


def test_what_dropout_adds_to_a_training_loss_is_no_gap():
    assert sweep(0.0, dropout=0.3).highest_rate(400) == math.inf
    assert sweep(0.1, dropout=0.3).highest_rate(400) == pytest.approx(sweep(0.1).highest_rate(400))
    # The batch that comes next is scored only where the two losses differ.
    assert sum(sweep(0.1).scored) == 27
    assert sum(sweep(0.1, dropout=0.3).scored) == 36


def test_an_optimizer_that_begins_slowly_is_taken_at_its_pace():
    pace = pace_of(torch.optim.RAdam([torch.zeros(1, requires_grad=True)]))
    steady, slow = sweep(0.1), sweep(0.1, pace=pace)
    # It took less than the rate when the gap was seen, and takes more in the middle of the run.
    assert 0.2 < slow.highest_rate(400) / steady.highest_rate(400) < 0.6


class Factors(nn.Module):
    """The product of the embeddings of a user and an item, and a bias of each: its sign is whether the one likes it."""

    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(100, 7), nn.Embedding(80, 7)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs):
        users, items = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        return (users[:, 1:] * items[:, 1:]).sum(1) + users[:, 0] + items[:, 0]


class Unsized:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


class Sized(Unsized):
    """A loader that says of itself what it likes."""

    def __init__(self, loader, length):
        super().__init__(loader)
        self.length = length

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


def find(*, length=True, kind=torch.optim.Adam, total_steps=600, num_steps=100):
    torch.manual_seed(0)
    pairs = torch.stack([torch.randint(100, (2200,)), torch.randint(80, (2200,))], 1)
    liking = 4.0 * torch.randn(4, 4)[pairs[:, 0] % 4, pairs[:, 1] % 4]
    liked = torch.rand(2200) < torch.sigmoid(liking)
    loader = DataLoader(TensorDataset(pairs, liked.float()), batch_size=32, shuffle=True)
    model = Factors()
    optimizer = kind(model.parameters(), lr=0.1)
    loss_fn = F.binary_cross_entropy_with_logits
    if length is not True:
        loader = Unsized(loader) if length is None else Sized(loader, length)
    return cw.lr_find(model, optimizer, loss_fn, loader, total_steps=total_steps, num_steps=num_steps)


def test_names_that_a_run_learns_by_heart_bound_the_rate():
    less_than_a_pass, usual, long = (find(total_steps=steps) for steps in (60, 600, 2400))
    assert less_than_a_pass.overfit_lr is None
    assert usual.max_lr == usual.overfit_lr < less_than_a_pass.max_lr / 2
    assert long.overfit_lr == pytest.approx(usual.overfit_lr / 4)


def test_without_a_length_nobody_knows_how_often_a_run_sees_its_samples():
    assert find(length=None).overfit_lr is None
    for error in (RuntimeError("iterate first"), NotImplementedError(), ValueError("what")):
        assert find(length=error).overfit_lr is None


@pytest.mark.parametrize("length", [0, 1, 10, -5])
def test_what_was_seen_is_believed_before_what_a_loader_says(length):
    # 68 batches, all of which a test of 300 steps sees.
    true = find(num_steps=300)
    assert find(length=length, num_steps=300).overfit_lr == true.overfit_lr
    assert true.overfit_lr is not None


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad])
def test_what_slows_down_by_itself_is_not_bounded(kind):
    assert find(kind=kind).overfit_lr is None
