"""Gradients that are clipped, and a loss that is no number: where it happened, what was saved, going on from there."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.clipping import AutoClip
from tests.training.small_learner import CONSTANT, arrays, make_learner, weights


def test_gradients_are_clipped_in_fits_and_range_tests():
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(float(torch.nn.utils.get_total_norm(gradients)))
            return super().step(closure)

    learn = make_learner(clip=0.05, optimizer=lambda groups: Watch(groups, lr=0.1))
    learn.fit(CONSTANT)
    learn.lr_find(num_steps=20)
    assert len(seen) >= 25
    assert max(seen) <= 0.05 * (1 + 1e-5)


def test_auto_clipping_tames_one_bad_batch():
    inputs, targets = arrays(16 * 60)
    inputs[16 * 50 : 16 * 51] *= -1e4
    data = cw.Data(list(zip(inputs.split(16), targets.split(16), strict=True)))
    learn = make_learner(data=data, model=nn.Linear(6, 2), clip="auto")
    sizes = []

    class Size(cw.Callback):
        def on_step_end(self, learner, step, loss):
            sizes.append(float(learner.model.weight.detach().norm()))

    learn.fit(cw.Constant(lr=0.01, total_steps=60), callbacks=[Size()])
    assert abs(sizes[50] - sizes[49]) < 0.1
    plain = make_learner(data=data, model=nn.Linear(6, 2))
    sizes.clear()
    plain.fit(cw.Constant(lr=0.01, total_steps=60), callbacks=[Size()])
    assert abs(sizes[50] - sizes[49]) > 10


def bombed():
    inputs, targets = arrays(16 * 20)
    return [(x * (float("nan") if i == 7 else 1.0), y)
            for i, (x, y) in enumerate(zip(inputs.split(16), targets.split(16), strict=True))]  # fmt: skip


@pytest.mark.parametrize("skipped", [math.inf, math.nan])
def test_norms_that_a_scaler_skips_do_not_switch_automatic_clipping_off(skipped):
    clip, weight = AutoClip(), torch.zeros(1, requires_grad=True)
    for norm in [skipped, *[1.0, 1.1] * 10, skipped, *[1.0, 1.1] * 20, 1e6]:
        weight.grad = torch.tensor([norm])
        clip([weight])
    assert 1.0 < weight.grad.item() < 1.2


def test_divergence_says_where_and_what_was_saved(tmp_path):
    learn = make_learner(data=cw.Data(bombed()))
    with pytest.raises(cw.DivergedError) as caught:
        learn.fit(cw.Constant(lr=0.05, total_steps=20), callbacks=[cw.Checkpoint(tmp_path, every_steps=3)])
    error = caught.value
    assert (error.step, error.lr) == (7, 0.05)
    assert error.checkpoint is not None
    assert error.checkpoint.name.endswith("step-00000006")
    assert str(error) == (
        "the training loss is nan at step 7, with a learning rate of 0.05; train with a lower max_lr (lr_find gives "
        "one), or look for NaN in the inputs; this step's batch holds values that are not finite; the last good "
        f"checkpoint is {str(error.checkpoint)!r}"
    )
    assert learn.resume(tmp_path) == 6
    assert all(bool(w.isfinite().all()) for w in weights(learn))


def test_rollback_goes_on_with_half_the_rate():
    learn = make_learner(
        model=nn.Linear(6, 1), loss_fn=lambda o, t: (o.squeeze(1) - t).square().mean() ** 2, on_divergence="rollback"
    )
    policy = cw.Linear(start_lr=0.01, end_lr=0.8, total_steps=50)
    with pytest.warns(
        UserWarning, match=r"^the training loss was not finite at step \d+; rolled back to step \d+, the "
    ):
        history = learn.fit(policy)
    assert history.num_steps == 50
    assert np.isfinite(history.loss).all()
    assert all(bool(w.isfinite().all()) for w in weights(learn))
    assert history.lr[-1] < 0.8
    assert "Rescaled(" in history.policies[0]
    with pytest.raises(cw.DivergedError):
        make_learner(model=nn.Linear(6, 1), loss_fn=learn.loss_fn).fit(policy)


def test_a_rollback_gives_up_after_five():
    learn = make_learner(data=cw.Data(bombed()), on_divergence="rollback")
    with pytest.warns(UserWarning, match="rolled back"), pytest.raises(cw.DivergedError):
        learn.fit(cw.Constant(lr=0.05, total_steps=20))


def test_auto_clip_is_not_stuck_after_norms_that_did_not_vary():
    clip = AutoClip()
    parameter = torch.zeros(1, requires_grad=True)
    for k in range(400):
        parameter.grad = torch.tensor([0.0 if k < 25 else 1.0 if k < 60 else 1.2])
        clip([parameter])
    assert float(parameter.grad) == pytest.approx(1.2)
