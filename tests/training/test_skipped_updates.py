"""Updates that a gradient scaler skips are no steps, however many there are, and not for ever."""

import os
import signal

import pytest
import torch
from torch.nn import functional as F

import cyclewise as cw
from tests.training.small_learner import equal, make_learner, weights

POLICY = cw.Linear(start_lr=0.1, end_lr=0.01, total_steps=8)


class Breaks:
    """A loss that is finite, and whose gradient is not from the `begin`-th to before the `end`-th call."""

    def __init__(self, begin, end, on_break=None):
        self.begin, self.end, self.on_break = begin, end, on_break
        self.calls = 0

    def __call__(self, outputs, targets):
        if not torch.is_grad_enabled():
            return F.cross_entropy(outputs, targets)
        self.calls += 1
        loss = F.cross_entropy(outputs, targets)
        if self.begin < self.calls <= self.end:
            if self.on_break is not None and self.calls == self.end:
                self.on_break()
            loss = loss + (outputs - outputs).sum().sqrt()
        return loss


def learner(loss_fn, *, scale=2.0**16, **options):
    learn = make_learner(loss_fn=loss_fn, **options)
    learn.runtime.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return learn


class Rates(cw.Callback):
    def __init__(self):
        self.seen = []

    def on_gradients(self, learner, batches):
        self.seen.append(learner.optimizer.param_groups[0]["lr"])


def test_skipped_updates_do_not_advance_the_policy():
    learn, rates = learner(Breaks(3, 33)), Rates()
    assert learn.fit(POLICY, callbacks=[rates]).num_steps == 8
    expected = POLICY.lr(range(8)).tolist()
    assert rates.seen == expected[:3] + 30 * [expected[3]] + expected[3:]
    assert learn.runtime.scaler.get_scale() == 2.0**-14


@pytest.mark.parametrize("begin", [0, 3])
def test_gradients_that_stay_broken_end_the_fit(begin):
    learn = learner(Breaks(begin, 10**9))
    with pytest.raises(cw.DivergedError) as caught:
        learn.fit(POLICY)
    assert str(caught.value) == (
        f"the gradient scaler skipped 50 updates in a row at step {begin}: the gradients are not finite; look for NaN "
        'in the inputs, or train with mixed_precision="bf16"'
    )
    assert (caught.value.step, caught.value.lr) == (begin, POLICY.lr(begin))
    assert learn.history.num_steps == begin


@pytest.mark.filterwarnings("ignore:the training loss was not finite at step")
@pytest.mark.parametrize("on_divergence", ["raise", "rollback"])
def test_a_scale_of_nothing_ends_the_fit_too(on_divergence):
    learn = learner(Breaks(3, 10**9), scale=2.0**-125, on_divergence=on_divergence)
    with pytest.raises(cw.DivergedError, match=r"^the scale of the gradient scaler must stay above 1e-38, got"):
        learn.fit(cw.Constant(lr=0.1, total_steps=8))


def test_ctrl_c_ends_a_fit_whose_updates_are_skipped(tmp_path):
    whole = learner(Breaks(3, 9))
    whole.fit(POLICY)
    cut = learner(Breaks(3, 9, on_break=lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(POLICY, callbacks=[cw.Checkpoint(tmp_path, every_steps=100)])
    assert cut.loss_fn.calls == 9
    later = learner(Breaks(0, 0))
    assert later.resume(tmp_path) == 3
    later.fit(POLICY, callbacks=[cw.Checkpoint(tmp_path)])
    assert equal(weights(later), weights(whole))
