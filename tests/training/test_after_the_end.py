"""What is left when a fit is over, was cut off at its end, or diverged: snapshots, checkpoints, Ctrl-C."""

import math
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from tests.training.cut_off import DieAt, Dies


def make_learner(loss_fn=None):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 4, generator=generator)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=16)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return cw.Learner(model, data, loss_fn=loss_fn, progress=False)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_finished_fit_has_its_snapshots_after_a_resume(tmp_path, on_disk):
    def script(learn):
        for fit in range(2):  # the snapshots of each are there right after it
            kept = tmp_path / f"snapshots-{fit}" if on_disk else True
            learn.fit_sgdr(
                T_0=1, num_cycles=2 + fit, max_lr=0.1, snapshots=kept, callbacks=[cw.Checkpoint(tmp_path / "run")]
            )
            yield len(learn.ensemble()), learn.ensemble().evaluate()
        learn.fit(cw.Constant(lr=0.01, total_steps=3), callbacks=[cw.Checkpoint(tmp_path / "run")])

    whole = list(script(make_learner()))
    again = make_learner()
    again.resume(tmp_path / "run")
    assert list(script(again)) == whole
    assert [number for number, _ in whole] == [2, 3]


def test_snapshots_of_ones_own_are_back_after_a_resume(tmp_path):
    policy = cw.SGDR(max_lr=0.1, T_0=3, num_cycles=2)
    first, later = cw.Snapshots(policy.cycle_ends), cw.Snapshots(policy.cycle_ends)
    make_learner().fit(policy, callbacks=[first, cw.Checkpoint(tmp_path)])
    learn = make_learner()
    learn.resume(tmp_path)
    learn.fit(policy, callbacks=[later])
    assert len(later.states) == 2
    assert torch.equal(later.states[0]["0.weight"], first.states[0]["0.weight"])


class InterruptIn(cw.Callback):
    def __init__(self, epoch):
        self.left = epoch

    def on_validation_start(self, learner):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_during_validation_ends_the_fit_after_it(tmp_path, epoch):
    policy = cw.Constant(lr=0.1, total_steps=12)
    whole = make_learner()
    whole.fit(policy)
    learn = make_learner()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(policy, callbacks=[InterruptIn(epoch), cw.Checkpoint(tmp_path, every_steps=1000)])
    assert len(learn.history.epochs) == epoch
    assert learn.num_steps == 4 * epoch
    later = make_learner()
    assert later.resume(tmp_path) == 4 * epoch
    assert len(later.fit(policy, callbacks=[InterruptIn(0), cw.Checkpoint(tmp_path)]).epochs) == 3
    assert torch.equal(later.model[0].weight, whole.model[0].weight)


def nan_at(step):
    calls = []

    def loss_fn(outputs, targets):
        if torch.is_grad_enabled():
            calls.append(1)
        return F.cross_entropy(outputs, targets) * (float("nan") if len(calls) == step + 1 else 1.0)

    return loss_fn


def test_divergence_right_after_a_resume_names_the_checkpoint(tmp_path):
    policy = cw.Constant(lr=0.1, total_steps=12)
    with pytest.raises(cw.DivergedError):
        make_learner(nan_at(6)).fit(policy, callbacks=[cw.Checkpoint(tmp_path, every_steps=4)])
    learn = make_learner(nan_at(0))
    assert learn.resume(tmp_path) == 4
    with pytest.raises(cw.DivergedError, match="the last good checkpoint is ") as caught:
        learn.fit(policy, callbacks=[cw.Checkpoint(tmp_path, every_steps=4)])
    assert caught.value.step == 4
    assert caught.value.checkpoint.name == "000002-step-00000004"


def test_divergence_in_a_second_fit_names_the_checkpoint_of_the_first(tmp_path):
    learn = make_learner(nan_at(5))
    learn.fit(cw.Constant(lr=0.1, total_steps=4), callbacks=[cw.Checkpoint(tmp_path)])
    with pytest.raises(cw.DivergedError) as caught:
        learn.fit(cw.Constant(lr=0.1, total_steps=4), callbacks=[cw.Checkpoint(tmp_path)])
    assert caught.value.step == 1
    assert caught.value.checkpoint.name.endswith("step-00000004")
    assert caught.value.checkpoint.is_dir()


@pytest.mark.parametrize("step", [3, 5, 7, 9, 10])
def test_what_a_script_draws_between_its_fits_is_drawn_again(tmp_path, step):
    def learner():
        torch.manual_seed(0)
        inputs = torch.randn(64, 4)
        dataset = TensorDataset(inputs, (inputs[:, 0] > 0).long())
        loaders = DataLoader(dataset, batch_size=16, shuffle=True), DataLoader(dataset, batch_size=16, shuffle=True)
        return cw.Learner(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)), cw.Data(*loaders))

    def script(learn, directory, die_at=None):
        drawn = []
        for _ in range(3):
            callbacks = [DieAt(die_at), cw.Checkpoint(directory, every_steps=2)]
            learn.fit(cw.Constant(lr=0.1, total_steps=4), callbacks=callbacks)
            learn.evaluate()  # a shuffled loader, or one with workers, draws from the global generator
            drawn.append(torch.rand(()).item())
        return learn, drawn

    whole, drawn = script(learner(), tmp_path / "whole")
    with pytest.raises(Dies):
        script(learner(), tmp_path / "cut", step)
    resumed = learner()
    resumed.resume(tmp_path / "cut")
    resumed, drawn_again = script(resumed, tmp_path / "cut")
    assert torch.equal(resumed.model[0].weight, whole.model[0].weight)
    assert drawn_again == drawn


@pytest.mark.parametrize("step", [2, None])
def test_scores_that_are_no_numbers_stay_so_after_a_resume(tmp_path, step):
    def learner():
        batch = torch.ones(8, 4), torch.zeros(8).long()
        torch.manual_seed(0)
        metrics = {"nothing": lambda outputs, targets: float("nan")}
        valid = [(torch.full((8, 4), float("nan")), batch[1])]
        return cw.Learner(nn.Linear(4, 2), cw.Data([batch], valid), metrics=metrics, progress=False)

    class InterruptAt(cw.Callback):
        def on_step_end(self, learner, at_step, loss):
            if at_step + 1 == step and learner.history.num_steps == 0 and not resumed:
                raise KeyboardInterrupt

    def fit(learn):
        return learn.fit(cw.Constant(lr=0.1, total_steps=4), callbacks=[InterruptAt(), cw.Checkpoint(tmp_path)])

    resumed = []
    if step is None:
        fit(learner())
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(learner())
    resumed.append(learner())
    resumed[0].resume(tmp_path)
    history = fit(resumed[0])
    assert str(history).endswith(", valid loss nan, nothing nan")
    assert len(history.epochs) == 4
    assert all(math.isnan(epoch.valid_loss) for epoch in history.epochs)
