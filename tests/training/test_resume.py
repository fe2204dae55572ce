"""Checkpoints: a run that was cut off anywhere ends with the bits of one that was not."""

import os
import re
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import cyclewise as cw
from tests.training.cut_off import LOADERS, DieAt, Dies, Quiet, arrays, bits, make_learner, records, same


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*arrays(), strict=True))


def script(learn, directory, every_steps, die_at=None):
    """Several calls, as a user's script has them."""
    callbacks = [cw.Checkpoint(directory, every_steps=every_steps)]
    death = [Quiet()] if die_at is None else [DieAt(die_at)]
    learn.lr_find(num_steps=10)
    learn.fit_one_cycle(2, max_lr=0.1, wd=1e-3, callbacks=[*callbacks, *death])
    learn.fit(cw.SGDR(max_lr=0.05, T_0=4, num_cycles=2), callbacks=[*callbacks, *death])
    return learn


@pytest.mark.parametrize("die_at", [3, 8, 13])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_run_that_dies_goes_on_with_the_same_bits(tmp_path, loader, accumulation_steps, die_at):
    options = {"accumulation_steps": accumulation_steps, "clip": "auto"}
    whole = script(make_learner(loader, **options), tmp_path / "whole", 2)
    die_at = min(die_at, whole.num_steps - 1)
    with pytest.raises(Dies):
        script(make_learner(loader, **options), tmp_path / "cut", 2, die_at)
    resumed = make_learner(loader, **options)
    # A run that dies at an odd step has its last checkpoint at the even one before, or at an epoch's end.
    assert 0 < resumed.resume(tmp_path / "cut") <= die_at
    script(resumed, tmp_path / "cut", 2)
    assert same(bits(resumed), bits(whole))
    assert records(resumed.history) == records(whole.history)
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0


def test_dying_at_every_step(tmp_path):
    whole = script(make_learner("loader"), tmp_path / "whole", 1)
    learn = make_learner("loader")
    for step in range(2, whole.num_steps):
        with pytest.raises(Dies):
            script(learn, tmp_path / "cut", 1, step)
        learn = make_learner("loader")
        assert learn.resume(tmp_path / "cut") in (step - 1, step)
    script(learn, tmp_path / "cut", 1)
    assert same(bits(learn), bits(whole))


class DieIn(cw.Callback):
    """Dies in the given call of a hook, counted from 0 over all fits."""

    def __init__(self, hook, count):
        self.left = count
        setattr(self, hook, self.act)

    def act(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise Dies


DieIn.__name__ = "DieAt"


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_end", "on_epoch_end", "on_fit_end"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("loader", LOADERS)
def test_dying_at_every_end_of_an_epoch_or_a_fit(tmp_path, loader, accumulation_steps, hook):
    def learner():
        return make_learner(loader, accumulation_steps=accumulation_steps)

    def fits(learn, directory, death):
        callbacks = [death, cw.Checkpoint(directory, every_steps=1)]
        learn.fit_one_cycle(1.6, max_lr=0.1, callbacks=callbacks)
        learn.fit_cyclical(cyc_len=1, num_cycles=2, max_lr=0.05, callbacks=callbacks)
        return learn

    whole = fits(learner(), tmp_path / "whole", Quiet())
    for count in range(2 if hook == "on_fit_end" else len(whole.history.epochs)):
        with pytest.raises(Dies):
            fits(learner(), tmp_path / str(count), DieIn(hook, count))
        resumed = learner()
        resumed.resume(tmp_path / str(count))
        fits(resumed, tmp_path / str(count), Quiet())
        assert records(resumed.history) == records(whole.history)
        assert same(bits(resumed), bits(whole))


@pytest.mark.parametrize("hook", ["on_validation_start", "on_epoch_end", "on_fit_end"])
def test_a_fit_that_was_told_to_stop_stays_stopped(tmp_path, hook):
    class StopAt(cw.Callback):
        def on_step_end(self, learner, step, loss):
            if step == 6:
                learner.stop()

    def fit(learn, directory, death):
        learn.fit(
            cw.Constant(lr=0.1, total_steps=20), callbacks=[StopAt(), death, cw.Checkpoint(directory, every_steps=1)]
        )
        return learn

    whole = fit(make_learner("augmented"), tmp_path / "whole", Quiet())
    with pytest.raises(Dies):
        fit(make_learner("augmented"), tmp_path / "cut", DieIn(hook, 0 if hook == "on_fit_end" else 1))
    resumed = make_learner("augmented")
    assert resumed.resume(tmp_path / "cut") == 7
    fit(resumed, tmp_path / "cut", Quiet())
    assert whole.num_steps == 7
    assert records(resumed.history) == records(whole.history)
    assert same(bits(resumed), bits(whole))


def test_a_finished_run_returns_its_records_at_once(tmp_path):
    whole = script(make_learner(), tmp_path, 4)
    again = make_learner()
    assert again.resume(tmp_path) == whole.num_steps
    before = bits(again)
    history = again.fit_one_cycle(2, max_lr=0.1, wd=1e-3)
    assert history.num_steps < whole.num_steps
    assert same(bits(again), before)
    assert again.history == whole.history
    # The next new call trains.
    again.fit(cw.SGDR(max_lr=0.05, T_0=4, num_cycles=2))
    again.fit(cw.Constant(lr=0.01, total_steps=2))
    assert again.num_steps == whole.num_steps + 2


def test_another_call_than_the_saved_one_is_refused_and_load_allows_it(tmp_path):
    script(make_learner(), tmp_path, 4)
    learn = make_learner()
    learn.resume(tmp_path)
    with pytest.raises(cw.CheckpointError) as caught:
        learn.fit(cw.Constant(lr=0.1, total_steps=3))
    assert re.fullmatch(
        r"fit 1 of the saved run has the policy OneCycle\(.*\); wd=0\.001, got Constant\(lr=0\.1, total_steps=3\); "
        r"after resume\(\) make the same calls in the same order; "
        r"to train on in another way use learn\.load\(directory\) instead",
        str(caught.value),
    )
    learn = make_learner()
    steps = learn.load(tmp_path)
    learn.fit(cw.Constant(lr=0.1, total_steps=3))
    assert learn.num_steps == steps + 3


class InterruptAt(cw.Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, learner, step, loss):
        if learner.num_steps == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [1, 4, 5, 10, 12])
def test_ctrl_c_ends_with_a_checkpoint_and_a_usable_learner(tmp_path, step):
    policy = cw.Constant(lr=0.1, total_steps=12)
    whole = make_learner("loader")
    whole.fit(policy, callbacks=[Quiet()])
    learn = make_learner("loader")
    interrupt = InterruptAt(step)
    checkpoint = cw.Checkpoint(tmp_path, every_steps=1000)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(policy, callbacks=[checkpoint, interrupt])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert learn.num_steps == learn.history.num_steps == step
    learn.fit(cw.Constant(lr=0.1, total_steps=2))
    later = make_learner("loader")
    assert later.resume(tmp_path) == step
    interrupt.step = None
    later.fit(policy, callbacks=[interrupt, cw.Checkpoint(tmp_path)])
    assert same(bits(later), bits(whole))


@pytest.mark.parametrize("step", [0, 3, 7])
def test_ctrl_c_in_the_middle_of_a_step_too(tmp_path, step):
    policy = cw.Constant(lr=0.1, total_steps=12)
    whole = make_learner()
    whole.fit(policy)
    calls = []

    def loss_fn(outputs, targets):
        calls.append(1)
        if len(calls) == step + 1:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, targets)

    learn = make_learner(loss_fn=loss_fn)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(policy, callbacks=[cw.Checkpoint(tmp_path, every_steps=1000)])
    later = make_learner()
    assert later.resume(tmp_path) == len(learn.history.loss)
    later.fit(policy, callbacks=[cw.Checkpoint(tmp_path)])
    assert same(bits(later), bits(whole))


def test_a_stream_goes_on_with_its_next_pass_and_says_so(tmp_path):
    def make():
        torch.manual_seed(0)
        return cw.Learner(nn.Linear(6, 2), DataLoader(Stream(), batch_size=16), progress=False)

    with pytest.raises(Dies):
        make().fit(cw.Constant(lr=0.1, total_steps=9), callbacks=[cw.Checkpoint(tmp_path, every_steps=2), DieAt(7)])
    learn = make()
    assert learn.resume(tmp_path) == 6
    with pytest.warns(UserWarning, match="train_loader cannot be taken up in the middle of a pass"):
        learn.fit(cw.Constant(lr=0.1, total_steps=9), callbacks=[cw.Checkpoint(tmp_path), Quiet()])
    assert learn.num_steps == 9


def test_averages_stops_and_snapshots_are_taken_up(tmp_path):
    def callbacks(death, directory):
        return [cw.WeightAverage(0.9), cw.EarlyStopping("train_loss", patience=3), death,
                cw.Checkpoint(directory, every_steps=3)]  # fmt: skip

    def fit(learn, death, directory=tmp_path / "cut"):
        learn.fit_sgdr(T_0=1, num_cycles=3, max_lr=0.1, snapshots=True, callbacks=callbacks(death, directory))
        return learn

    whole = fit(make_learner(), Quiet(), tmp_path / "whole")
    states = [dict(state) for state in whole.ensemble()._states] if hasattr(whole.ensemble(), "_states") else None
    with pytest.raises(Dies):
        fit(make_learner(), DieAt(8))
    resumed = make_learner()
    resumed.resume(tmp_path / "cut")
    fit(resumed, Quiet())
    assert same(bits(resumed), bits(whole))
    assert len(resumed.ensemble()) == len(whole.ensemble()) == 3
    if states is not None:
        assert all(same(a, b) for a, b in zip(resumed.snapshots.states, states, strict=True))


def test_save_and_resume_between_fits(tmp_path):
    learn = make_learner()
    learn.fit(cw.Constant(lr=0.1, total_steps=6))
    learn.save(tmp_path)
    learn.fit(cw.Constant(lr=0.05, total_steps=6))
    later = make_learner()
    assert later.resume(tmp_path) == 6
    later.fit(cw.Constant(lr=0.1, total_steps=6))
    later.fit(cw.Constant(lr=0.05, total_steps=6))
    assert same(bits(learn), bits(later))
