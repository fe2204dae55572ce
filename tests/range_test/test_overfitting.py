"""Samples seen again: a rate is no higher than that at which a run learns them by heart."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.overfitting import Course


def travel(losses, *, training=None):
    """A course of as many steps as there are looks, one loss per held-out batch or a list of them.

    The training loss goes along as long as the held-out loss falls, and stays there, unless it is given.
    """
    course = Course(len(losses))
    looks = iter(losses)
    lowest = np.fmin.accumulate([float(np.mean(loss)) for loss in losses]).tolist()
    for loss in lowest if training is None else training:
        course.update(0.1, loss, lambda: np.atleast_1d(next(looks)).tolist())
    return course


def test_the_way_to_the_bottom_of_the_valley_is_what_a_run_may_come():
    # Lowest after 4 steps of 0.1; a run of 100 steps comes 50 times its peak.
    course = travel([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert course.highest_rate(100) == pytest.approx(0.4 / 50)
    assert course.highest_rate(1000) == pytest.approx(course.highest_rate(100) / 10)
    assert course.highest_rate(None) == course.highest_rate(250)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [1.0],
        [1.0, 0.5],
        [1.0, 0.5, 0.4, 0.3],  # still falling
        [1.0, 1.1, 1.2, 1.3],  # never fell
        [math.nan, 0.5, 1.0],  # nothing to compare with
        [[1.0, 1.0, 1.0], [0.5, 1.1, 1.3], [1.0, 1.0, 1.2]],  # a fall in one batch of three
    ],
)
def test_where_no_valley_was_seen_no_rate_is_too_high(losses):
    assert travel(losses).highest_rate(100) == math.inf


def test_where_the_training_loss_rises_too_it_is_the_rate_that_is_too_high():
    held_out = [1.0, 0.6, 0.2, 0.6, 1.2, 1.4, 1.5, 1.6]
    learned, lost = [1.0, 0.6, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1], [1.0, 0.6, 0.3, 0.6, 1.2, 1.4, 1.5, 1.6]
    assert travel(held_out, training=learned).highest_rate(100) < 0.02
    assert travel(held_out, training=lost).highest_rate(100) == math.inf


def test_a_gap_of_less_than_a_fifth_of_the_fall_is_none_nor_one_that_a_single_look_sees():
    fall = [1.0, 1.0, 1.0, 0.0]
    for behind, is_one in (([0.15] * 4, False), ([0.25] * 4, True), ([0.1] * 3 + [0.9], False)):
        assert (travel(fall + behind).highest_rate(100) < math.inf) == is_one


def test_a_training_loss_that_goes_on_falling_leaves_the_held_out_loss_behind_too():
    held_out = [1.0, 1.0, 1.0, 0.5, 0.51, 0.51, 0.52, 0.52]
    learned, level = ([1.1, 1.1, 1.1, 0.6, *[last] * 4] for last in (0.3, 0.6))
    assert travel(held_out, training=learned).highest_rate(100) == pytest.approx(0.011, rel=0.1)
    assert travel(held_out, training=level).highest_rate(100) == math.inf


def test_two_losses_that_are_not_finite_leave_no_gap():
    fall = [1.0] * 6 + [0.5] * 2
    assert travel(fall + [math.inf] * 8, training=fall + [math.nan] * 8).highest_rate(100) == math.inf


@pytest.mark.parametrize("end", [math.inf, math.nan, 1e30])
def test_a_loss_that_blows_up_has_risen(end):
    assert travel([1.0, 1.0, 1.0, 0.2, end, end]).highest_rate(100) == pytest.approx(0.4 / 50)


def test_eight_looks_from_the_first_step_to_the_last():
    course = Course(52)
    steps = []
    for step in range(52):
        course.update(1.0, 0.0, lambda step=step: steps.append(step) or [1.0])
    assert (len(steps), steps[0], steps[-1]) == (8, 0, 51)
    assert course.way == [step + 1.0 for step in steps]


def test_a_sweep_that_ends_early_is_looked_at_where_it_ends():
    course = Course(52)
    for _ in range(7):
        course.update(1.0, 0.0, lambda: [1.0])
    course.close(lambda: [2.0])
    assert (course.way[-1], course.losses[-1]) == (7.0, [2.0])
    course.close(lambda: [3.0])
    assert course.losses[-1] == [2.0]


def overlapping(num_samples):
    """Two classes that overlap: the better the training samples are known, the worse is what is held out."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (num_samples,), generator=generator)
    inputs = torch.randn(num_samples, 20, generator=generator)
    inputs[:, :4] += 1.2 * labels[:, None]
    return inputs, labels


def final_loss(rate, num_steps):
    torch.manual_seed(1)
    inputs, labels = overlapping(4000)
    loader = DataLoader(TensorDataset(inputs[:200], labels[:200]), batch_size=20, shuffle=True)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = cw.PolicyLR(optimizer, cw.OneCycle(max_lr=rate, total_steps=num_steps, pct_start=0.25))
    for _ in range(num_steps // len(loader)):
        for batch, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), targets).backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        return float(F.cross_entropy(model(inputs[200:]), labels[200:]))


def find(num_samples, *, optimizer=torch.optim.Adam, **options):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*overlapping(num_samples)), batch_size=20, shuffle=True)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    return cw.lr_find(model, optimizer(model.parameters(), lr=1e-3), F.cross_entropy, loader, **options)


def test_the_rate_is_that_of_a_run_that_does_not_learn_by_heart():
    found = find(200, total_steps=300)
    assert found.overfit_lr == found.max_lr
    edge = find(200, total_steps=1)
    assert edge.overfit_lr > edge.max_lr > 2 * found.max_lr
    assert final_loss(found.max_lr, 300) < 0.45 < final_loss(edge.max_lr, 300)
    assert "learned by heart" in found.section().conclusion
    assert "learned by heart" not in edge.section().conclusion
    assert cw.RangeTest.from_dict(found.to_dict()) == found
    larger = found.scaled(batch_size=40)
    assert larger.overfit_lr == larger.max_lr > found.max_lr


def test_the_length_of_the_run_is_what_it_depends_on():
    short, long, usual = (find(200, total_steps=steps) for steps in (250, 2500, None))
    assert short.max_lr == pytest.approx(10 * long.max_lr)
    assert usual.max_lr == short.max_lr


def test_an_optimizer_that_lowers_its_rate_by_itself_is_not_bounded():
    assert find(200, optimizer=torch.optim.Adam, num_steps=300).overfit_lr is not None
    assert find(200, optimizer=torch.optim.Adagrad, num_steps=300).overfit_lr is None


def test_samples_seen_less_than_twice_are_not_looked_at_this_way():
    assert find(1000).overfit_lr is None
    assert find(1000).max_lr == find(1000, total_steps=5000).max_lr


def test_a_sweep_that_sees_many_samples_again_is_looked_at():
    found = find(640, num_steps=300, total_steps=2000)
    assert found.overfit_lr == found.max_lr


def test_gradient_descent_slows_down_by_itself_and_may_come_four_times_as_far():
    courses = [Course(6, divides_by_size=divides) for divides in (True, False)]
    for course in courses:
        for loss, training in [(1.0, 1.0)] * 3 + [(0.2, 0.2), (1.0, 0.2), (1.0, 0.2)]:
            course.update(0.1, training, lambda loss=loss: [loss])
    assert courses[1].highest_rate(100) == pytest.approx(4 * courses[0].highest_rate(100))
    assert find(200, optimizer=torch.optim.RMSprop).overfit_lr < find(200, optimizer=torch.optim.SGD).overfit_lr


def test_the_training_loss_is_not_the_one_that_is_read_from_a_valid_loader():
    torch.manual_seed(0)
    inputs, labels = overlapping(400)
    loaders = [DataLoader(TensorDataset(inputs[part], labels[part]), 20) for part in (slice(200), slice(200, 400))]
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters())
    found = cw.lr_find(model, optimizer, F.cross_entropy, loaders[0], valid_loader=loaders[1], total_steps=300)
    assert found.overfit_lr == found.max_lr
