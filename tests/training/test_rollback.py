"""Where a rollback goes: to a state that is good, told by the end of its epoch and by validation data."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.training.recorder import Recorder

GENERATOR = torch.Generator().manual_seed(1)
INPUTS = torch.randn(640, 10, generator=GENERATOR)
TARGETS = INPUTS @ torch.randn(10, 1, generator=GENERATOR)


def learner(*, batch_size=160, activation=nn.ReLU, valid_fraction=0.0, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), activation(), nn.Linear(64, 64), activation(), nn.Linear(64, 1))
    data = cw.Data.from_arrays(INPUTS, TARGETS, batch_size=batch_size, valid_fraction=valid_fraction)
    return cw.Learner(model, data, loss_fn=F.mse_loss, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                      progress=False, on_divergence="rollback", **options)  # fmt: skip


def recorded(epochs, valid_losses=None):
    """A recorder that has seen epochs of these step losses."""
    recorder = Recorder(cw.Constant(lr=0.1, total_steps=1000), is_eager=True)
    for index, losses in enumerate(epochs):
        first = recorder.num_steps
        for loss in losses:
            recorder.add_loss(torch.tensor(loss))
        scores = {} if valid_losses is None else {"loss": valid_losses[index]}
        recorder.end_epoch(first, scores, 1.0)
    return recorder


@pytest.mark.parametrize(
    ("epochs", "is_healthy"),
    [
        ([], True),
        ([[1.0, 0.8, 0.6, 0.5]], True),
        ([[1.0, 0.5, 3.0, 400.0]], False),  # the first epoch, on its way up
        ([[1.0, 1.0, 1.1, 0.9]], True),
        ([[1.0, 0.5, 0.2, 0.1], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 5.0, 6.0]], False),  # only at its end
        ([[1.0, 0.5, 0.2, 0.1], [0.1, 0.6, 0.3, 0.15]], True),  # a spike that it got over
        ([[-1.0, -2.0, -3.0, -4.0], [-4.0, -4.0, -4.0, -3.9]], True),
        ([[1.0, 0.5], []], True),
        (
            [[0.05, 0.9, 0.4, 0.7, 0.5, 0.3, 0.8, 0.5], [0.4, 0.6, 0.3, 0.5, 0.2, 0.4, 0.3, 0.5]],
            True,
        ),  # one lucky batch
        ([[1.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0]], False),
        ([[1.0, 1.5, 2.3, 3.4, 5.1, 7.6, 11.4, 17.1]], False),
    ],
)
def test_the_end_of_an_epoch_tells_whether_it_is_healthy(epochs, is_healthy):
    assert recorded(epochs).is_healthy() == is_healthy


@pytest.mark.parametrize(("loss", "is_healthy"), [(0.3, True), (50.0, True), (math.inf, False), (math.nan, False)])
def test_validation_data_tell_what_the_last_step_did(loss, is_healthy):
    assert recorded([[1.0, 0.5, 0.3, 0.2]], [loss]).is_healthy() == is_healthy


@pytest.mark.parametrize("lr", [0.2, 0.4])
def test_a_run_that_explodes_at_once_begins_anew_at_a_rate_that_works(lr):
    learn = learner(batch_size=32, activation=nn.Tanh)
    with pytest.warns(UserWarning, match="rolled back to step 0, the rates from there on times 0.5"):
        history = learn.fit(cw.Constant(lr=lr, total_steps=480))
    assert history.loss[-1] < 0.1 * history.loss[0]


class Bomb(cw.Callback):
    """Makes one gradient huge, once."""

    def __init__(self, at_step):
        self.at_step = at_step
        self.steps = 0

    def on_gradients(self, learner, batches):
        if self.steps == self.at_step:
            learner.model[0].weight.grad.fill_(1e30)
        self.steps += 1


@pytest.mark.parametrize("valid_fraction", [0.25, 0.0])
def test_damage_by_the_last_step_of_an_epoch_is_undone(valid_fraction):
    learn = learner(batch_size=32, valid_fraction=valid_fraction)
    per_epoch = len(learn.data.train_loader)
    with pytest.warns(UserWarning, match=rf"not finite at step {3 * per_epoch}; rolled back to step {2 * per_epoch},"):
        history = learn.fit(cw.Constant(lr=0.01, total_steps=5 * per_epoch),
                            callbacks=[Bomb(3 * per_epoch - 1)])  # fmt: skip
    assert history.num_steps == 5 * per_epoch
    assert np.isfinite(history.loss).all()


class Averaging(nn.Module):
    """Divides by a running mean of the sizes of its inputs that is not in its state dict."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(10, 1)
        self.register_buffer("size", torch.ones(()), persistent=False)

    def forward(self, inputs):
        if self.training:
            self.size.mul_(0.9).add_(0.1 * inputs.abs().mean().detach())
        return self.linear(inputs / self.size)


def averaging():
    torch.manual_seed(0)
    model = Averaging()
    data = cw.Data.from_arrays(INPUTS, TARGETS, batch_size=64, seed=0)
    return cw.Learner(model, data, loss_fn=F.mse_loss, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                      progress=False)  # fmt: skip


class Stop(cw.Callback):
    at_step = None

    def on_step_end(self, learn, step, loss):
        if step == self.at_step:
            raise KeyboardInterrupt


class Thaw(cw.Callback):
    """Trains the bias only from step 9 on."""

    def on_fit_start(self, learn, total_steps):
        learn.model.linear.bias.requires_grad_(learn.run.num_steps >= 9)

    def on_step_end(self, learn, step, loss):
        if learn.run.num_steps == 9:
            learn.model.linear.bias.requires_grad_(True)


@pytest.mark.parametrize("others", [[], [Thaw]])
def test_hidden_buffers_and_what_is_trained_are_resumed(tmp_path, others):
    policy = cw.Constant(lr=0.05, total_steps=30)
    whole = averaging()
    stop = Stop()

    def callbacks(directory):
        return [*(kind() for kind in others), stop, cw.Checkpoint(tmp_path / directory, every_steps=5)]

    whole.fit(policy, callbacks=callbacks("whole"))
    stop.at_step = 18
    with pytest.raises(KeyboardInterrupt):
        averaging().fit(policy, callbacks=callbacks("cut"))
    stop.at_step = None
    again = averaging()
    assert again.resume(tmp_path / "cut") == 19
    assert again.model.size != 1.0
    again.fit(policy, callbacks=callbacks("cut"))
    assert torch.equal(again.model.size, whole.model.size)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))


def buffered(size):
    model = nn.Linear(10, 1)
    model.register_buffer("spread", torch.full((1, 4), 3.0).expand(3, 4), persistent=False)
    model.register_buffer("mask", torch.ones(size), persistent=False)
    data = cw.Data.from_arrays(INPUTS, TARGETS, batch_size=64, seed=0)
    return cw.Learner(model, data, loss_fn=F.mse_loss, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                      progress=False)  # fmt: skip


@pytest.mark.parametrize(("own", "saved", "then"), [(4, 4, 4), (4, 6, 6), (6, 4, 6)])
def test_buffers_that_cannot_be_written_to_are_exchanged_and_larger_ones_stay(tmp_path, own, saved, then):
    first = buffered(saved)
    first.fit(cw.Constant(lr=0.01, total_steps=2))
    first.save(tmp_path)
    again = buffered(own)
    again.model.spread = torch.zeros(1, 4).expand(3, 4)
    again.load(tmp_path)
    assert bool((again.model.spread == 3.0).all())
    assert len(again.model.mask) == then
