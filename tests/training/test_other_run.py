"""Resuming something else than what was saved, and resuming a run that had rolled back."""

import errno
import hashlib
import io
import json
import os
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.training import bundle
from tests.training.cut_off import DieAt, Dies

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0).long()
POLICY = cw.Constant(lr=0.1, total_steps=12)


def arrays(num_samples=64, **options):
    return cw.Data.from_arrays(INPUTS[:num_samples], CLASSES[:num_samples], **{"batch_size": 16, **options})


def loader(num_samples=64, batch_size=16):
    dataset = TensorDataset(INPUTS[:num_samples], CLASSES[:num_samples])
    return cw.Data(DataLoader(dataset, batch_size=batch_size, shuffle=True))


def make_learner(data=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    return cw.Learner(model, data or arrays(), progress=False, **options)


def cut(directory, step=6, policy=POLICY, learn=None, **options):
    learn = learn or make_learner()
    with pytest.raises(Dies):
        learn.fit(policy, callbacks=[cw.Checkpoint(directory, every_steps=1), DieAt(step)], **options)


def go_on(learn, directory, policy=POLICY, **options):
    return learn.fit(policy, callbacks=[cw.Checkpoint(directory, every_steps=1), DieAt()], **options)


@pytest.mark.parametrize(("saved", "given", "message"), [
    (arrays, lambda: arrays(60),
     "train_loader must be the one of the saved run, a ArrayLoader, 51 samples, batches of 16, seed 0, got a "
     "ArrayLoader, 48 samples, batches of 16, seed 0; pass the same data, or take weights and optimizer alone with "
     "learn.load(directory)"),
    (arrays, lambda: arrays(seed=1), None),
    (arrays, lambda: arrays(batch_size=8), None),
    (arrays, loader, None),
    (loader, lambda: loader(60), None),
    (loader, lambda: loader(batch_size=8), None),
    (lambda: [(INPUTS, CLASSES)] * 3, lambda: [(INPUTS, CLASSES)] * 2, None),
])  # fmt: skip
def test_other_data_is_refused_and_load_allows_it(tmp_path, saved, given, message):
    if message is None:
        cut(tmp_path, learn=make_learner(saved()))
    else:
        go_on(make_learner(saved()), tmp_path)
    learn = make_learner(given())
    with pytest.raises(cw.CheckpointError, match=r"^train_loader must be the one of the saved run, a ") as caught:
        learn.resume(tmp_path)
        go_on(learn, tmp_path)
    assert message is None or str(caught.value) == message
    learn = make_learner(given())
    assert learn.load(tmp_path) > 0
    learn.fit(cw.Constant(lr=0.1, total_steps=2))


def test_another_weight_decay_is_another_fit(tmp_path):
    cut(tmp_path, wd=1e-3)
    for wd, text in ((None, ""), (1e-2, "; wd=0.01")):
        learn = make_learner()
        learn.resume(tmp_path)
        with pytest.raises(cw.CheckpointError) as caught:
            go_on(learn, tmp_path, wd=wd)
        assert str(caught.value) == (
            "fit 1 of the saved run has the policy Constant(lr=0.1, total_steps=12); wd=0.001, got "
            f"Constant(lr=0.1, total_steps=12){text}; after resume() make the same calls in the same order; "
            "to train on in another way use learn.load(directory) instead"
        )


def test_another_accumulation_is_refused(tmp_path):
    cut(tmp_path)
    learn = make_learner(accumulation_steps=2)
    learn.resume(tmp_path)
    with pytest.raises(cw.CheckpointError) as caught:
        go_on(learn, tmp_path)
    assert str(caught.value) == (
        "fit 1 of the saved run has accumulation_steps=1, got 2; make the Learner with the one that was saved"
    )


def test_another_kind_of_optimizer_is_refused_and_stays_whole(tmp_path):
    cut(tmp_path)
    learn = make_learner(optimizer=torch.optim.Adam)
    with pytest.raises(cw.CheckpointError, match=r"^the checkpoint '.*' is of another optimizer, SGD, got Adam; make "):
        learn.resume(tmp_path)
    assert learn.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    learn.fit(POLICY)


def forge(path, state):
    payload = io.BytesIO()
    torch.save(state, payload)
    (path / "state.pt").write_bytes(payload.getvalue())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"bytes": len(payload.getvalue()), "sha256": hashlib.sha256(payload.getvalue()).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


def signed(path):
    manifest = json.loads((path / "manifest.json").read_text())
    return {"manifest": json.dumps({k: v for k, v in manifest.items() if k not in ("bytes", "sha256")}), "model": {}}


@pytest.mark.parametrize(("state", "complaint"), [
    (lambda path: [1, 2], r"the checkpoint '.*' holds no state of a Learner; it is not used"),
    (lambda path: {"weight": torch.ones(1)}, r"the checkpoint '.*' holds no state of a Learner; it is not used"),
    (lambda path: {"manifest": "{"}, r"the checkpoint '.*' holds no state of a Learner; it is not used"),
    (signed, r"the checkpoint '.*' lacks calls, clip, history, num_ranks, optimizer, .*; it is not used"),
])  # fmt: skip
def test_a_forged_checkpoint_falls_back_to_the_one_before(tmp_path, state, complaint):
    cut(tmp_path)
    *_, before, newest = bundle.find(tmp_path)
    forge(newest.path, state(newest.path))
    with pytest.warns(UserWarning, match=f"^{complaint}; the one before it is$"):
        assert make_learner().resume(tmp_path) == before.step


def test_the_folder_of_one_checkpoint_can_be_resumed_and_loaded(tmp_path):
    learn = make_learner()
    learn.fit(cw.Constant(lr=0.1, total_steps=3))
    path = learn.save(tmp_path)
    learn.fit(cw.Constant(lr=0.1, total_steps=2))
    learn.save(tmp_path)
    assert make_learner().resume(tmp_path) == 5
    assert make_learner().resume(path) == make_learner().load(str(path)) == 3


@pytest.mark.parametrize(("name", "why"), [("typo", "there is no such folder"), ("empty", "it holds none")])
def test_nothing_to_load_is_an_error_and_nothing_to_resume_a_warning(tmp_path, name, why):
    (tmp_path / "empty").mkdir()
    directory = tmp_path / name
    learn = make_learner()
    with pytest.raises(cw.CheckpointError) as caught:
        learn.load(directory)
    assert str(caught.value) == (
        f"directory must hold a checkpoint to load, got {str(directory)!r}: {why}; pass the directory of a Checkpoint, "
        "or what learn.save() has returned"
    )
    with pytest.warns(UserWarning, match="^there is no complete checkpoint in '.*'; starting from step 0$") as warned:
        assert learn.resume(directory) == 0
    assert warned[0].filename == __file__


def test_a_damaged_checkpoint_is_told_to_whoever_loads_or_resumes(tmp_path):
    cut(tmp_path)
    (bundle.find(tmp_path)[-1].path / "manifest.json").unlink()
    for call in ("load", "resume"):
        with pytest.warns(UserWarning, match="the one before it is$") as warned:
            getattr(make_learner(), call)(tmp_path)
        assert warned[0].filename == __file__


@pytest.mark.parametrize("call", ["save", "resume", "load"])
def test_a_directory_that_cannot_be_one(tmp_path, call):
    with pytest.raises(
        cw.ArgumentTypeError, match=re.escape('directory must be a path, got int 7; pass for example "run"')
    ):
        getattr(make_learner(), call)(7)
    (tmp_path / "file").touch()
    with pytest.raises(cw.ArgumentError, match=r"^directory must be a folder, got the file '"):
        getattr(make_learner(), call)(tmp_path / "file")


def rolling_back():
    """A Learner whose loss is not finite where the rate is above 0.06."""

    def loss_fn(outputs, targets):
        too_high = torch.is_grad_enabled() and learn.optimizer.param_groups[0]["lr"] > 0.06
        return F.cross_entropy(outputs, targets) * (float("nan") if too_high else 1.0)

    learn = make_learner(loss_fn=loss_fn, on_divergence="rollback")
    return learn


@pytest.mark.parametrize("step", [2, 4, 5, 6, 7, 9, 14])
@pytest.mark.filterwarnings("ignore:the training loss was not finite")
def test_a_run_that_rolls_back_is_resumed_with_the_same_bits(tmp_path, step):
    # Rises through 0.06 in the second epoch of four steps: rolled back to its beginning, with half the rates.
    policy = cw.OneCycle(max_lr=0.11, total_steps=16, pct_start=0.6, div_factor=10)
    whole = rolling_back()
    go_on(whole, tmp_path / "whole", policy)
    assert "Rescaled" in whole.history.policies[0]
    cut(tmp_path / "cut", step, policy, rolling_back())
    learn = rolling_back()
    assert learn.resume(tmp_path / "cut") in (step - 1, step)
    go_on(learn, tmp_path / "cut", policy)
    assert torch.equal(learn.model[0].weight, whole.model[0].weight)
    assert learn.history.policies == whole.history.policies
    assert learn.history.loss.tolist() == whole.history.loss.tolist()


def test_a_disk_that_stays_full_does_not_fill_the_log(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_learner().fit(POLICY, callbacks=[cw.Checkpoint(tmp_path, every_steps=1)])
    steps = [re.match(r"the checkpoint at step (\d+) could not be written", str(item.message))[1] for item in caught]
    assert steps == ["1", "12"]


def test_a_range_test_other_than_the_saved_one_is_refused(tmp_path):
    learn = make_learner()
    record = learn.lr_find(num_steps=20)
    learn.fit(POLICY, callbacks=[cw.Checkpoint(tmp_path)])
    for options, message in (
        ({}, "lr_find of the saved run has num_steps=20, got 100; "),
        ({"num_steps": 20, "seed": 7}, "lr_find of the saved run has seed=0, got 7; "),
    ):
        again = make_learner()
        again.resume(tmp_path)
        with pytest.raises(
            cw.CheckpointError, match=f"^{message}after resume\\(\\) make the same calls in the same order"
        ):
            again.lr_find(**options)
        assert again.lr_find(num_steps=20) == record
