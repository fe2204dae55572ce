"""The watch in loops of one's own: no trace, right numbers, due by the count, misuse refused."""

import copy
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

EVERY_STEP = {"every": 1, "noise_every": 1, "sharpness_every": 1}


def batches(n, size=16, *, generator=None):
    generator = generator or torch.Generator().manual_seed(7)
    inputs = torch.randn(n, size, 6, generator=generator)
    return [(x, (x[:, 0] > 0).long()) for x in inputs]


class OwnGenerator(nn.Module):
    """Draws from all global generators and one of its own, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)
        self.num_calls = 0

    def forward(self, x):
        self.num_calls += 1
        noise = torch.randn(x.shape, generator=self.generator) + torch.rand(()) + random.random() + np.random.rand()
        return x + 0.01 * noise + 0.001 * self.num_calls


def network():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), OwnGenerator(), nn.Tanh(), nn.Dropout(0.2),
                         nn.Linear(16, 2))  # fmt: skip


def train(model, optimizer, data, *, watch=None, accumulation_steps=1, autocast=False, clip=None):
    def loss_of(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return F.cross_entropy(model(x), y)

    if watch is not None:
        watch.start(model, optimizer, F.cross_entropy, autocast_dtype=torch.bfloat16 if autocast else None)
    for i in range(0, len(data), accumulation_steps):
        group = data[i : i + accumulation_steps]
        optimizer.zero_grad()
        for x, y in group:
            (loss_of(x, y) / len(group)).backward()
        if watch is not None:
            watch.step(*group)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    if watch is not None:
        watch.stop()
    everything = [
        t.clone() for t in (*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None))
    ]
    return everything, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)


def same(one, other):
    return (
        all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
        and torch.equal(one[1], other[1])
        and one[2:] == other[2:]
    )


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
    assert dict(watch.record.unavailable) == {
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


# -- misuse and what cannot be had ----------------------------------------------------------------------------------


def started(**options):
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = cw.Watch(**options).start(model, optimizer, F.cross_entropy)
    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()
    return watch, model, optimizer, (x, y)


def test_misuse_says_what_to_do():
    def refused(call):
        with pytest.raises(cw.ArgumentError) as caught:
            call()
        return str(caught.value)

    batch = batches(1)[0]
    assert refused(lambda: cw.Watch().step(batch)) == (
        "step() needs a model to watch, got none; call start(model, optimizer, loss_fn) first"
    )
    watch, model, optimizer, batch = started()
    assert refused(lambda: watch.start(model, optimizer, F.cross_entropy)) == (
        "start() must not be called on a watch that is watching; call stop() first"
    )
    watch.step(batch)
    assert refused(lambda: watch.step(batch)) == (
        "step() must be called once per optimizer.step(), got a second call without one in between; "
        "call it after the last backward pass of an update, not after each"
    )
    watch, model, optimizer, batch = started()
    optimizer.step()
    assert refused(lambda: watch.step(batch)) == (
        "step() must be called before every optimizer.step(), got 1 update(s) without it; "
        "put it between loss.backward() and optimizer.step(), and stop() the watch while anything else updates"
    )
    watch, model, optimizer, batch = started()
    optimizer.zero_grad()
    assert refused(lambda: watch.step(batch)) == (
        "step() must be called while the parameters have their gradients, got none; "
        "put it between loss.backward() and optimizer.step()"
    )
    assert refused(lambda: cw.Watch(every=0)) == (
        "every must be a whole number of at least 1, got 0; 50 measures at every 50th step"
    )
    assert refused(lambda: cw.Watch(noise_every=2.5)) == (
        'noise_every must be a whole number of at least 1, got 2.5; it counts steps; "auto" is also possible, '
        "None is never"
    )
    assert refused(lambda: cw.Watch(most_fraction=0)) == (
        "most_fraction must be a finite number above 0, got 0; 0.05 allows 5 % of the time"
    )


def test_a_stopped_watch_lets_go():
    watch, _, optimizer, batch = started(every=1)
    watch.step(batch)
    watch.stop()
    optimizer.step()
    assert not optimizer._optimizer_step_post_hooks
    assert len(watch.record) == 0


def test_an_update_that_the_scaler_skips_is_no_step():
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    watch = cw.Watch(**EVERY_STEP).start(model, optimizer, F.cross_entropy, scaler=scaler)
    norms = []
    for i, (x, y) in enumerate(batches(4)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        norms.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters(), retain_graph=True)]).norm()
        )
        scaler.scale(loss * (float("inf") if i == 1 else 1.0)).backward()
        watch.step((x, y))
        scaler.step(optimizer)
        scaler.update()
    record = watch.record
    assert record.step.tolist() == [0, 1, 2]
    np.testing.assert_allclose(record.gradient_norm, [float(norms[i]) for i in (0, 2, 3)], rtol=1e-5)
    assert record.gradient_variance.max() < 100.0


def test_an_optimizer_with_a_closure_is_measured_at_its_first_gradient():
    model = nn.Linear(6, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    watch = cw.Watch(**EVERY_STEP).start(model, optimizer, F.cross_entropy)
    for x, y in batches(2):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            watch.step((x, y))
            return loss

        optimizer.step(closure)
    assert watch.record.step.tolist() == [0, 1]
    assert np.isfinite(watch.record.update_ratio).all()


def test_without_a_batch_only_norms_are_measured(caplog):
    watch, _, optimizer, _ = started(**EVERY_STEP)
    watch.step()
    optimizer.step()
    record = watch.record
    assert math.isfinite(record.gradient_norm[0])
    assert math.isnan(record.sharpness[0])
    assert dict(record.unavailable) == {
        "noise_scale": "step() was given no batch", "sharpness": "step() was given no batch"
    }  # fmt: skip
    assert caplog.messages == [
        "noise_scale is not watched: step() was given no batch", "sharpness is not watched: step() was given no batch",
    ]  # fmt: skip


def test_what_cannot_be_had_does_not_end_the_training():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            if torch.is_grad_enabled():  # as it is where this is to be differentiated once more
                raise NotImplementedError("derivative for once_backward is not implemented")
            return gradient

    class Stubborn(nn.Module):
        """Takes batches of 16 only, and has no second derivative."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x):
            return self.layer(Once.apply(self.layer(x.view(16, 6))) @ torch.ones(2, 6))

    model, watch = Stubborn(), cw.Watch(**EVERY_STEP)
    train(model, sgd(model), batches(2), watch=watch)
    missing = dict(watch.record.unavailable)
    assert re.match(
        r"the model does not take a part of a batch \(RuntimeError: shape '\[16, 6\]'", missing["noise_scale"]
    )
    assert missing["sharpness"] == (
        "model must be differentiable twice for its curvature, got Linear 'layer': derivative for once_backward is not "
        "implemented; exchange that part for one made of plain torch operations"
    )
    assert len(watch.record) == 2


# -- the record -----------------------------------------------------------------------------------------------------


def made(sharpness, limit=(10.0, 10.0, 10.0)):
    return cw.Watched(step=[9, 19, 29], lr=[0.2] * 3, gradient_norm=[1.0] * 3, sharpness=sharpness,
                      sharpness_limit=limit, num_steps=30)  # fmt: skip


@pytest.mark.parametrize(
    ("sharpness", "steps"),
    [
        ([2.0, 9.5, 11.0], (19, 29)),
        ([2.0, 11.0, 2.0], (19, 19)),
        ([9.5, math.nan, 9.0], (9, 29)),
        ([1.0, 8.9, 1.0], None),
    ],
)
def test_the_edge_of_stability_is_where_the_sharpness_reaches_its_limit(sharpness, steps):
    record = made(sharpness)
    assert record.edge_steps == steps
    assert ("edge of stability" in str(record)) == (steps is not None)


def test_the_record_is_drawn_under_the_rate(tmp_path):
    model, watch = network(), cw.Watch(every=1, noise_every=2, sharpness_every=2)
    train(model, sgd(model), batches(8), watch=watch)
    record = watch.record
    assert [chart.title for chart in record.charts()] == [
        "Learning rate", "Sharpness against the limit of the optimizer", "Gradient norm", "Update over weights",
        "Gradient noise scale",
    ][: len(record.charts())]  # fmt: skip
    limit, along, sharpness = record.charts()[1].lines
    assert limit.dashed
    assert len(limit.x) == 8
    assert along.x == sharpness.x == [1, 3, 5, 7]
    assert len(record.plot().axes) == len(record.charts())
    page = cw.write_html(record, tmp_path / "report.html").read_text()
    assert "Sharpness against the limit of the optimizer" in page
    assert record == cw.Watched.from_dict(record.to_dict())
    joined = record.followed_by(record)
    assert joined.step.tolist() == [*range(8), *range(8, 16)]
    with pytest.raises(cw.ArgumentError, match=r"^plot\(\) needs a measurement, got none in 0 steps; train on, or"):
        cw.Watched().plot()
    with pytest.raises(cw.ArgumentError, match=r"^lr must have one number per step, got 1 for 2 steps; leave it out"):
        cw.Watched(step=[0, 1], lr=[0.1])
    with pytest.raises(
        cw.ArgumentError, match=r"^values must describe a Watched of version 1, got record=None, versio"
    ):
        cw.Watched.from_dict({})
