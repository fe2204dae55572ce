"""Checkpoints as files: damaged, foreign or half-written ones, a full disk, and which of them are kept."""

import errno
import json
import os
import pickle
import signal
import warnings

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise import files
from cyclewise.training import bundle
from tests.training.cut_off import LOADERS, DieAt, Dies, arrays, bits, make_learner, same


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
    assert {item.step for item in found} == {best, 55, 60}
    assert len(found) <= 3


@pytest.mark.parametrize("total_steps", [8, 10])
@pytest.mark.parametrize("options", [{"every_epochs": 1}, {"every_steps": 4, "every_epochs": 1}, {"every_steps": 1}])
@pytest.mark.parametrize("valid_fraction", [0.2, 0.0])
def test_keep_counts_steps_and_not_the_writes_of_one(tmp_path, options, valid_fraction, total_steps):
    # Four batches an epoch: without validation data five, and the last epoch then ends with the fit or before.
    learn = make_learner()
    learn = cw.Learner(learn.model, cw.Data.from_arrays(*arrays(), batch_size=16, valid_fraction=valid_fraction))
    seen = []

    class Look(cw.Checkpoint):
        def _clear(self):
            super()._clear()
            seen.append([item.step for item in bundle.find(tmp_path)])

    learn.fit(cw.Constant(lr=0.1, total_steps=total_steps), callbacks=[Look(tmp_path, keep=2, **options)])
    for steps in seen:
        assert len(steps) == len(set(steps)), steps
    before, last = seen[-1][-2:]
    assert before < last == total_steps
    epochs = [(epoch.valid_loss, -epoch.step) for epoch in learn.history.epochs if epoch.valid_loss is not None]
    best = -min(epochs)[1] if epochs else None
    assert set(seen[-1]) == {before, last} | ({best} if best else set())
    # What the last one takes the place of had the scores of its epoch, and may be the best.
    losses = {item.step: bundle.read_manifest(item.path)["valid_loss"] for item in bundle.find(tmp_path)}
    for epoch in learn.history.epochs:
        assert losses.get(epoch.step, epoch.valid_loss) == epoch.valid_loss


def test_the_best_stays_where_a_later_one_of_its_step_has_no_scores(tmp_path):
    learn = make_learner()

    class InterruptAfter(cw.Callback):
        def on_epoch_end(self, learner, epoch):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[InterruptAfter(), cw.Checkpoint(tmp_path, keep=1)])
    manifests = [bundle.read_manifest(item.path) for item in bundle.find(tmp_path)]
    assert [manifest["step"] for manifest in manifests] == [4, 4]
    assert [manifest["valid_loss"] is None for manifest in manifests] == [False, True]


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
        cut.fit(
            cw.Constant(lr=0.1, total_steps=8), callbacks=[cw.Checkpoint(tmp_path / "cut", every_steps=2), DieAt(5)]
        )
    learn = make_learner()
    learn.resume(tmp_path / "cut")
    with pytest.raises(
        cw.CheckpointError, match=r"^fit 1 of the saved run has the callbacks \['DieAt', 'Checkpoint'\]"
    ):
        learn.fit(cw.Constant(lr=0.1, total_steps=8))


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


@pytest.mark.parametrize("call", ["remove", "find", "read_manifest", "remove_leftovers"])
def test_a_disk_that_cannot_be_cleared_is_a_warning_and_the_run_goes_on(tmp_path, monkeypatch, call):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    class Breaks(cw.Callback):
        """Lets the disk fail when the training has begun, and only where old checkpoints are looked through."""

        def on_epoch_end(self, learner, epoch):
            if call == "find":
                monkeypatch.setattr("cyclewise.training.checkpoint.bundle", Stub)

    class Stub:
        find, read, remove = broken, bundle.read, bundle.remove

    if call == "remove_leftovers":
        monkeypatch.setattr("cyclewise.training.checkpoint.remove_leftovers", broken)
    elif call == "remove":
        monkeypatch.setattr(bundle, "remove", broken)
    elif call == "read_manifest":
        monkeypatch.setattr("cyclewise.training.checkpoint._valid_loss", broken)
    learn = make_learner()
    with pytest.warns(UserWarning, match="^old checkpoints in ") as caught:
        learn.fit(cw.Constant(lr=0.1, total_steps=20), callbacks=[Breaks(), cw.Checkpoint(tmp_path, keep=1)])
    assert [str(warning.message) for warning in caught] == [
        f"old checkpoints in {str(tmp_path)!r} could not be looked through or removed ([Errno 5] Input/output error); "
        "training goes on, remove what is not needed by hand"
    ]
    monkeypatch.undo()
    assert learn.num_steps == 20
    later = make_learner()
    assert later.resume(tmp_path) == 20
    assert same(bits(later), bits(learn))
