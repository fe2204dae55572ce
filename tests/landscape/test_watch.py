"""The watch in loops of one's own: no trace, right numbers, due by the count."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.unavailable import Unavailable
from tests.landscape.watching import EVERY_STEP, batches, network, same, sgd, train

# -- no trace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"accumulation_steps": 2}, {"autocast": True}, {"clip": 0.01}], ids=str)
@pytest.mark.parametrize("optimizer", [sgd, lambda model: torch.optim.AdamW(model.parameters(), lr=0.01)])
def test_a_watched_run_ends_with_the_bits_of_one_that_is_not(options, optimizer):
    model = network()
    plain = train(model, optimizer(model), batches(12), **options)
    model, watch = network(), cw.Watch(**EVERY_STEP)
    watched = train(model, optimizer(model), batches(12), watch=watch, **options)
    assert same(plain, watched)
    # Adam has no second moments before its first update.
    assert np.isfinite(watch.record.sharpness[1:]).all()
    assert np.isfinite(watch.record.gradient_variance).all()


def test_frozen_parameters_are_left_out():
    def make():
        model = network()
        model[0].requires_grad_(False)
        return model

    model = make()
    plain = train(model, sgd(model), batches(6))
    model, watch = make(), cw.Watch(**EVERY_STEP)
    assert same(plain, train(model, sgd(model), batches(6), watch=watch))
    assert model[0].weight.grad is None
    assert np.isfinite(watch.record.sharpness).all()


def test_the_same_run_has_the_same_record():
    records = []
    for _ in range(2):
        model, watch = network(), cw.Watch(**EVERY_STEP)
        train(model, sgd(model), batches(6), watch=watch)
        records.append(watch.record)
    assert records[0] == records[1]


# -- right numbers --------------------------------------------------------------------------------------------------


def dense_hessian(model, batch):
    names = [name for name, p in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        parts = torch.split(flat, [math.prod(shape) for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, values, (batch[0],)), batch[1])

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    gradient = torch.autograd.functional.jacobian(loss, flat)
    return gradient, torch.autograd.functional.hessian(loss, flat)


def plain_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2)).double()


def test_norms_sharpness_and_curvature_against_the_dense_hessian():
    model = plain_network()
    data = [(x.double(), y) for x, y in batches(8)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    watch = cw.Watch(**EVERY_STEP).start(model, optimizer, F.cross_entropy)
    expected = []
    for batch in data:
        gradient, hessian = dense_hessian(model, batch)
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        watch.step(batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        expected.append([
            gradient.norm(), (after - before).norm() / before.norm(), torch.linalg.eigvalsh(hessian)[-1],
            gradient @ hessian @ gradient / (gradient @ gradient),
        ])  # fmt: skip
    record = watch.record
    expected = torch.tensor(expected).numpy()
    np.testing.assert_allclose(record.gradient_norm, expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose(record.update_ratio, expected[:, 1], rtol=1e-10)
    np.testing.assert_allclose(record.sharpness, expected[:, 2], rtol=0.02)
    np.testing.assert_allclose(record.curvature, expected[:, 3], rtol=1e-10)
    assert (record.sharpness <= expected[:, 2] + 1e-12).all()
    assert (np.abs(record.sharpness - expected[:, 2]) <= record.residual + 1e-12).all()
    assert record.lr.tolist() == [0.2] * 8
    np.testing.assert_allclose(record.sharpness_limit, 2 / 0.2)


def test_for_adam_the_hessian_is_preconditioned():
    model = plain_network()
    data = [(x.double(), y) for x, y in batches(5)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.0)
    watch = cw.Watch(**EVERY_STEP, num_products=30).start(model, optimizer, F.cross_entropy)
    expected = []
    for batch in data:
        _, hessian = dense_hessian(model, batch)
        if optimizer.state:
            states = [optimizer.state[p] for p in model.parameters()]
            step = float(states[0]["step"])
            squares = torch.cat([state["exp_avg_sq"].flatten() for state in states])
            divisor = (1 - 0.8**step) * ((squares / (1 - 0.9**step)).sqrt() + 1e-8)
            expected.append(float(torch.linalg.eigvalsh(hessian / (divisor[:, None] * divisor).sqrt())[-1]))
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        watch.step(batch)
        optimizer.step()
    record = watch.record
    assert math.isnan(record.sharpness[0])  # it has divided by nothing yet
    np.testing.assert_allclose(record.sharpness[1:], expected, rtol=0.01)
    np.testing.assert_allclose(record.sharpness_limit, 2 * 1.8 / (0.2 * 0.01))
    assert record.unavailable == ()


def test_batch_norm_normalises_by_the_batch_as_it_does_in_training():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(x.double(), y) for x, y in batches(3)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = cw.Watch(**EVERY_STEP, num_products=30).start(model, optimizer, F.cross_entropy)
    for number, batch in enumerate(data):
        copied = copy.deepcopy(model)
        copied[1].track_running_stats = False  # a copy whose statistics are nobody's
        _, hessian = dense_hessian(copied, batch)
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        watch.step(batch)
        optimizer.step()
        assert model[1].num_batches_tracked == number + 1
        assert watch.record.sharpness[-1] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)


def test_without_a_known_limit_the_hessian_itself_is_measured():
    model = nn.Linear(6, 2)
    optimizer = torch.optim.Rprop(model.parameters())
    watch = cw.Watch(**EVERY_STEP)
    train(model, optimizer, batches(2), watch=watch)
    assert np.isfinite(watch.record.sharpness).all()
    assert np.isnan(watch.record.sharpness_limit).all()
    assert "that the optimizer can stand" not in str(watch.record)


def test_the_largest_eigenvalue_is_not_the_largest_in_size():
    class Saddle(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 1.0, 0.5]))

        def forward(self, x):
            return (x * torch.tensor([3.0, -10.0, 1.0]) * self.weight.square()).sum() / 2

    model = Saddle()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = cw.Watch(**EVERY_STEP).start(model, optimizer, lambda out, target: out)
    batch = torch.ones(3), torch.zeros(3)
    model(batch[0]).backward()
    watch.step(batch)
    optimizer.step()
    assert watch.record.sharpness[0] == pytest.approx(3.0, rel=1e-5)


def test_the_last_direction_finds_what_the_gradient_has_left():
    # Diagonal quadratic: the gradient has no part along the top direction, the direction of the last time does.
    model = nn.Linear(200, 1, bias=False)
    eigenvalues = torch.linspace(0.1, 1.0, 200)
    eigenvalues[3] = 50.0

    def loss_fn(out, target):
        return 0.5 * (eigenvalues * model.weight[0].square()).sum() + 0.0 * out.sum()

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    watch = cw.Watch(every=1, noise_every=None, sharpness_every=1).start(model, optimizer, loss_fn)
    batch = torch.ones(1, 200), torch.zeros(1)
    for _ in range(2):
        optimizer.zero_grad()
        loss_fn(model(batch[0]), batch[1]).backward()
        watch.step(batch)
        optimizer.step()
        with torch.no_grad():
            model.weight[0, 3] = 0.0
    np.testing.assert_allclose(watch.record.sharpness, 50.0, rtol=1e-4)
    assert watch.record.curvature[1] < 1.0


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_noise_scale_on_a_known_covariance(accumulation_steps):
    # loss = mean over samples of w'(mu + sigma z): a sample's gradient is mu + sigma z, whatever the weights.
    generator = torch.Generator().manual_seed(1)
    mean, sigma, size = torch.full((50,), 0.3), 2.0, 16
    model = nn.Linear(50, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    watch = cw.Watch(every=1, noise_every=1, sharpness_every=None)
    watch.start(model, optimizer, lambda outputs, targets: outputs.mean())
    for _ in range(300):
        group = [(mean + sigma * torch.randn(size, 50, generator=generator), torch.zeros(size))
                 for _ in range(accumulation_steps)]  # fmt: skip
        optimizer.zero_grad()
        for x, _ in group:
            (model(x).mean() / accumulation_steps).backward()
        watch.step(*group)
        optimizer.step()
    record = watch.record
    variance, squared = 50 * sigma**2, float(mean.square().sum())
    for values, expected in ((record.gradient_variance, variance), (record.squared_gradient, squared)):
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error
        assert error < 0.1 * expected
    assert record.num_samples == size * accumulation_steps
    assert np.nanmedian(record.noise_scale[100:]) == pytest.approx(variance / squared, rel=0.3)


def test_consecutive_gradients_would_hide_the_signal_at_the_edge():
    """Why two parts of a batch are compared, and not two steps: the first one moves the weights against itself."""
    generator = torch.Generator().manual_seed(1)
    eigenvalues, lr, size = torch.tensor([1.0, 0.1, 0.1, 0.1]), 1.9, 8
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def loss_fn(out, z):
        return 0.5 * (eigenvalues * model.weight[0].square()).sum() + (z @ model.weight[0]).mean() + 0.0 * out.sum()

    watch = cw.Watch(every=1, noise_every=1, sharpness_every=None).start(model, optimizer, loss_fn)
    true, products, before = [], [], None
    for _ in range(400):
        z = torch.randn(size, 4, generator=generator)
        optimizer.zero_grad()
        loss_fn(model(torch.zeros(size, 4)), z).backward()
        true.append(float((eigenvalues * model.weight[0]).detach().square().sum()))
        gradient = model.weight.grad.clone()
        if before is not None:
            products.append(float((gradient * before).sum()))
        before = gradient
        watch.step((torch.zeros(size, 4), z))
        optimizer.step()
    ours = watch.record.squared_gradient
    assert abs(ours.mean() - np.mean(true)) < 4 * ours.std() / math.sqrt(len(ours))
    assert np.mean(products) < 0.0 < np.mean(true)


# -- due by the count -----------------------------------------------------------------------------------------------


def test_what_is_due_follows_from_the_count():
    model, watch = network(), cw.Watch(every=4, noise_every=3, sharpness_every=None)
    train(model, sgd(model), batches(9), watch=watch)
    record = watch.record
    assert record.step.tolist() == [2, 3, 5, 7, 8]
    assert np.isfinite(record.gradient_norm).all()
    assert np.isfinite(record.update_ratio).tolist() == [False, True, False, True, False]
    assert np.isfinite(record.gradient_variance).tolist() == [True, False, True, False, True]
    assert record.num_steps == 9


def test_the_default_intervals_are_counted_for_five_per_cent():
    settings = dict(cw.Watch().record.settings)
    assert settings == {"every": 50, "noise_every": 1200, "sharpness_every": 3000, "num_products": 9}
    half = dict(cw.Watch(most_fraction=0.025).record.settings)
    for name in ("noise_every", "sharpness_every"):
        assert half[name] == pytest.approx(2 * settings[name], abs=1)
    model, watch = network(), cw.Watch()
    train(model, sgd(model), batches(50), watch=watch)
    assert watch.record.step.tolist() == [49]
    assert dict(watch.record.unavailable) == dict.fromkeys(("noise_scale", "sharpness"), Unavailable.TOO_FEW_STEPS)
    assert dict(watch.record.details) == {
        "noise_scale": "50 steps are fewer than the 1200 between two measurements; pass noise_every= to measure more "
        "often",
        "sharpness": "50 steps are fewer than the 3000 between two measurements; pass sharpness_every= to measure more "
        "often",
    }


def test_a_saved_watch_goes_on():
    whole_model, whole = network(), cw.Watch(every=2, noise_every=3, sharpness_every=2)
    optimizer = sgd(whole_model)
    train(whole_model, optimizer, batches(10), watch=whole)

    model, first = network(), cw.Watch(every=2, noise_every=3, sharpness_every=2)
    optimizer = sgd(model)
    train(model, optimizer, batches(10)[:5], watch=first)
    state = copy.deepcopy(first.state_dict())
    later = cw.Watch(every=2, noise_every=3, sharpness_every=2)
    later.load_state_dict(state)
    train(model, optimizer, batches(10)[5:], watch=later)
    assert later.record == whole.record
