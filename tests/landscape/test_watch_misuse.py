"""The watch misused, stopped, skipped, and where a number cannot be had."""

import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.unavailable import Unavailable
from tests.landscape.watching import EVERY_STEP, batches, sgd, train


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
    assert dict(record.unavailable) == dict.fromkeys(("noise_scale", "sharpness"), Unavailable.NO_BATCH)
    assert record.details == ()
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
    reasons, missing = dict(watch.record.unavailable), dict(watch.record.details)
    assert reasons == {"noise_scale": Unavailable.NOT_SPLITTABLE, "sharpness": Unavailable.NOT_TWICE}
    assert cw.Watched.from_dict(json.loads(json.dumps(watch.record.to_dict()))) == watch.record
    later = cw.Watch(**EVERY_STEP)
    later.load_state_dict(watch.state_dict())
    assert later.record == watch.record
    assert re.match(
        r"the model does not take a part of a batch \(RuntimeError: shape '\[16, 6\]'", missing["noise_scale"]
    )
    assert missing["sharpness"] == (
        "model must be differentiable twice for its curvature, got Stubborn: derivative for once_backward is not "
        "implemented; exchange that part for one made of plain torch operations"
    )
    assert len(watch.record) == 2
