"""Checkpoints: a run that was cut off anywhere ends with the bits of one that was not."""

import errno
import json
import os
import pickle
import random
import re
import signal
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import cyclewise as cw
from cyclewise.training import bundle, files

SAMPLES = 70  # batches of 16: the last one of an epoch is smaller


def arrays():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


class Augmented(Dataset):
    """Draws from all the global generators, and from one of its own."""

    def __init__(self):
        self.inputs, self.targets = arrays()
        self.own = np.random.default_rng(3)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item() + self.own.random()
        return self.inputs[index] + 0.1 * noise, self.targets[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*arrays(), strict=True))


LOADERS = {
    "arrays": lambda: cw.Data.from_arrays(*arrays(), batch_size=16, seed=5),
    "loader": lambda: cw.Data(DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True)),
    "own generator": lambda: cw.Data(
        DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1))
    ),
    "augmented": lambda: cw.Data(
        DataLoader(Augmented(), batch_size=16, shuffle=True), DataLoader(Augmented(), batch_size=16)
    ),
    "workers": lambda: cw.Data(
        DataLoader(TensorDataset(*arrays()), batch_size=16, shuffle=True, num_workers=1, multiprocessing_context="fork")
    ),
    "list": lambda: cw.Data([(x, y) for x, y in zip(*(part.split(16) for part in arrays()), strict=True)]),
}


def make_learner(loader="arrays", **options):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return cw.Learner(model, LOADERS[loader](), optimizer=optimizer, progress=False, **options)


def bits(learn):
    return {name: value.clone() for name, value in learn.model.state_dict().items()}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def records(history):
    values = history.to_dict()
    for epoch in values["epochs"]:
        del epoch["seconds"]
    return values


class Dies(Exception):
    pass


class DieAt(cw.Callback):
    """Ends the fit as a crash would, after the callbacks before it have seen the step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, learner, step, loss):
        if learner.num_steps == self.step:
            raise Dies


class Quiet(cw.Callback):
    """Stands where `DieAt` stood, so that the callbacks are the same ones."""


Quiet.__name__ = "DieAt"


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


def trained(directory, **options):
    learn = make_learner(**options)
    learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[cw.Checkpoint(directory, every_steps=2, keep=2)])
    return learn


def truncate(path):
    payload = (path / "state.pt").read_bytes()
    (path / "state.pt").write_bytes(payload[: len(payload) // 2])


def edit(path):
    payload = bytearray((path / "state.pt").read_bytes())
    payload[len(payload) // 2] ^= 1
    (path / "state.pt").write_bytes(payload)


def edit_manifest(path):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["step"] += 1
    (path / "manifest.json").write_text(json.dumps(manifest))


def foreign(path):
    (path / "manifest.json").write_text('{"format": "something else"}')


DAMAGES = {
    truncate: r"the checkpoint '.*' is truncated: state\.pt has \d+ bytes, \d+ were written; it is not used",
    edit: r"the checkpoint '.*' was changed after it was written; it is not used",
    edit_manifest: r"the manifest of '.*' was changed after it was written; it is not used",
    foreign: r"'.*' is not a checkpoint that cyclewise wrote; it is not used",
    lambda path: (path / "state.pt").unlink(): r"the checkpoint '.*' has no readable state\.pt; it is not used",
    lambda path: (path / "manifest.json").unlink(): r"the checkpoint '.*' has no readable manifest \(FileNotFound.*",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    trained(tmp_path)
    *_, before, newest = bundle.find(tmp_path)
    damage(newest.path)
    learn = make_learner()
    with pytest.warns(UserWarning, match=f"^{DAMAGES[damage]}; the one before it is$"):
        assert learn.resume(tmp_path) == before.step
    for found in bundle.find(tmp_path)[:-1]:
        damage(found.path)
    with pytest.raises(cw.CheckpointError, match=r"^directory must hold a checkpoint that can be used, got \d damaged"):
        make_learner().resume(tmp_path)


def test_loading_runs_no_code(tmp_path):
    trained(tmp_path)
    newest = bundle.find(tmp_path)[-1].path
    victim = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return (victim.write_text, ("x",))

    import hashlib

    payload = pickle.dumps(Evil())
    (newest / "state.pt").write_bytes(payload)
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest |= {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(cw.CheckpointError, match="cannot be loaded"):
        bundle.read(newest)
    assert not victim.exists()


def test_leftovers_are_ignored_and_cleared_and_an_empty_folder_is_step_0(tmp_path):
    leftover = tmp_path / f"{files.TEMPORARY}abc.tmp"
    leftover.mkdir()
    (leftover / "state.pt").write_bytes(b"half")
    with pytest.warns(UserWarning, match="^there is no complete checkpoint in '.*'; starting from step 0$"):
        assert make_learner().resume(tmp_path) == 0
    with pytest.warns(UserWarning, match="there is no complete checkpoint"):
        assert make_learner().resume(tmp_path / "missing") == 0
    trained(tmp_path)
    assert not leftover.exists()


def test_the_last_and_the_best_are_kept(tmp_path):
    learn = make_learner("augmented")
    learn.fit(cw.Constant(lr=0.3, total_steps=60), callbacks=[cw.Checkpoint(tmp_path, every_epochs=1, keep=2)])
    found = bundle.find(tmp_path)
    losses = {epoch.step: epoch.valid_loss for epoch in learn.history.epochs}
    best = min(losses, key=losses.get)
    assert {item.step for item in found} == {best, 60}
    assert len(found) <= 3


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    whole = make_learner()
    whole.fit(cw.Constant(lr=0.1, total_steps=8))
    learn = make_learner()
    calls = []

    def fsync(handle):
        calls.append(handle)
        if 4 < len(calls) < 9:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(
        UserWarning, match=r"^the checkpoint at step \d+ could not be written to '.*' \(\[Errno 28\] No "
    ):
        learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[cw.Checkpoint(tmp_path, every_steps=2)])
    assert same(bits(learn), bits(whole))
    assert not list(tmp_path.glob(f"{files.TEMPORARY}*"))
    assert make_learner().resume(tmp_path) == 8


def test_another_model_optimizer_or_callback_is_refused(tmp_path):
    trained(tmp_path)
    other = cw.Learner(nn.Linear(6, 2), LOADERS["arrays"]())
    with pytest.raises(
        cw.CheckpointError, match=r"^the checkpoint '.*' is of another model: \d+ of its entries differ"
    ):
        other.resume(tmp_path)
    learn = make_learner()
    groups = [{"params": [p]} for p in learn.model.parameters()]
    learn = cw.Learner(learn.model, LOADERS["arrays"](), optimizer=torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(cw.CheckpointError, match=r"^the checkpoint '.*' is of another optimizer \("):
        learn.resume(tmp_path)
    cut = make_learner()
    with pytest.raises(Dies):
        cut.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[cw.Checkpoint(tmp_path, every_steps=2), DieAt(5)])
    learn = make_learner()
    learn.resume(tmp_path)
    with pytest.raises(
        cw.CheckpointError, match=r"^fit 1 of the saved run has the callbacks \['DieAt', 'Checkpoint'\]"
    ):
        learn.fit(cw.Constant(lr=0.1, total_steps=8))


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
    def callbacks(death):
        return [cw.WeightAverage(0.9), cw.EarlyStopping("train_loss", patience=3), death,
                cw.Checkpoint(tmp_path, every_steps=3)]  # fmt: skip

    def fit(learn, death):
        learn.fit_sgdr(T_0=1, num_cycles=3, max_lr=0.1, snapshots=True, callbacks=callbacks(death))
        return learn

    whole = fit(make_learner(), Quiet())
    states = [dict(state) for state in whole.ensemble()._states] if hasattr(whole.ensemble(), "_states") else None
    with pytest.raises(Dies):
        fit(make_learner(), DieAt(8))
    resumed = make_learner()
    resumed.resume(tmp_path)
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


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: cw.Checkpoint(7), 'directory must be a path, got int 7; pass for example "run"'),
    (lambda path: cw.Checkpoint(path, keep=0), "keep must be a whole number of at least 1, got 0; 3 is a good number"),
    (lambda path: cw.Checkpoint(path, every_steps=0.5),
     "every_steps must be a whole number of at least 1, got 0.5; 1000 writes after every thousand updates"),
])  # fmt: skip
def test_messages(tmp_path, make, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        make(tmp_path)
    assert str(caught.value) == message


def test_nothing_warns_in_a_plain_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(tmp_path)
