"""Whose snapshots a folder holds: an ensemble is never mixed with another fit's, and what was cut off goes on."""

import pytest
import torch

import cyclewise as cw
from cyclewise.training.snapshots import Snapshots
from tests.training.cut_off import DieAt, Dies, Quiet, bits, make_learner, same
from tests.training.three_cycles import POLICY, data, fitted, plain


def learner(seed=0):
    learn = cw.Learner(plain(), data(), progress=False)
    with torch.no_grad():
        learn.model[0].bias += seed
    return learn


def sgdr(learn, directory, num_cycles=3, **options):
    learn.fit_sgdr(T_0=1, num_cycles=num_cycles, max_lr=0.1, snapshots=directory, **options)
    return learn


def refusal(directory, num_files):
    return (
        f"directory must hold no snapshots of another fit, got {str(directory)!r} with {num_files} that this one has "
        "not written, such as snapshot-001.pt; pass another folder, or delete them if they are not needed"
    )


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("has_checkpoints", [False, True])
@pytest.mark.parametrize("is_same", [False, True])
def test_another_fit_s_snapshots_are_not_written_over(tmp_path, is_same, has_checkpoints):
    directory = tmp_path / "snapshots"
    callbacks = [cw.Checkpoint(tmp_path / "run")] if has_checkpoints else []
    first = sgdr(learner(), directory, callbacks=callbacks)
    ensemble = first.ensemble()
    predicted, before = ensemble.predict(), contents(directory)
    second = first if is_same else learner(1)
    weights = bits(second)
    with pytest.raises(cw.CheckpointError) as caught:
        sgdr(second, directory, num_cycles=2, callbacks=callbacks if is_same else [])
    assert str(caught.value) == refusal(directory, 3)
    assert contents(directory) == before
    assert torch.equal(ensemble.predict(), predicted)
    assert same(bits(second), weights)
    assert len(sgdr(second, tmp_path / "other", num_cycles=2).ensemble()) == 2


def test_one_object_replaces_its_own(tmp_path):
    learn, snapshots = fitted(tmp_path)
    before = contents(tmp_path)
    learn.fit(POLICY, callbacks=[snapshots])
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


def test_a_folder_with_other_files_is_free(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert len(fitted(tmp_path)[1].states) == 3


# Epochs and cycles are of 4 steps; a checkpoint follows every 3rd step, so there are snapshots newer than it.
@pytest.mark.parametrize("step", [4, 5, 8, 10])
def test_a_fit_that_was_cut_off_goes_on_in_its_folder(tmp_path, step):
    def script(learn, name, death):
        checkpoint = cw.Checkpoint(tmp_path / name, every_steps=3)
        return sgdr(learn, tmp_path / f"{name}-snapshots", callbacks=[death, checkpoint])

    whole = script(make_learner(), "whole", Quiet())
    with pytest.raises(Dies):
        script(make_learner(), "cut", DieAt(step))
    later = make_learner()
    later.resume(tmp_path / "cut")
    script(later, "cut", Quiet())
    assert same(bits(later), bits(whole))
    assert len(later.ensemble()) == 3
    assert torch.equal(later.ensemble().predict(), whole.ensemble().predict())


def test_a_second_fit_that_was_cut_off_goes_on_in_its_folder(tmp_path):
    def script(learn, death):
        for number in range(2):
            sgdr(learn, tmp_path / str(number), callbacks=[death, cw.Checkpoint(tmp_path / "run", every_steps=3)])
        return learn

    with pytest.raises(Dies):
        script(make_learner(), DieAt(23))
    later = make_learner()
    later.resume(tmp_path / "run")
    script(later, Quiet())
    assert len(later.ensemble()) == 3


@pytest.mark.parametrize("call", ["load", "resume"])
def test_a_run_that_was_loaded_or_had_ended_is_no_licence_for_the_folder(tmp_path, call):
    policy = cw.SGDR(max_lr=0.1, T_0=4, num_cycles=2)

    def fit(learn, death):
        learn.fit(policy, callbacks=[Snapshots(policy.cycle_ends, directory=tmp_path / "kept"), death,
                                     cw.Checkpoint(tmp_path / "run", every_steps=1)])  # fmt: skip

    if call == "load":
        with pytest.raises(Dies):
            fit(make_learner(), DieAt(6))
    else:
        fit(make_learner(), Quiet())
    later = make_learner()
    getattr(later, call)(tmp_path / "run")
    if call == "resume":
        fit(later, Quiet())  # it had ended, and is looked up
    with pytest.raises(cw.CheckpointError) as caught:
        later.fit(policy, callbacks=[Snapshots(policy.cycle_ends, directory=tmp_path / "kept")])
    assert str(caught.value) == refusal(tmp_path / "kept", 1 if call == "load" else 2)


@pytest.mark.parametrize("has_other", [False, True])
def test_a_fit_that_was_killed_before_its_first_checkpoint_goes_on_in_its_folder(tmp_path, has_other):
    def script(learn, name, death):
        callbacks = [death, cw.Checkpoint(tmp_path / name, every_steps=1000)]
        if has_other:
            learn.fit(cw.Constant(lr=0.1, total_steps=2), callbacks=callbacks)
        return sgdr(learn, tmp_path / f"{name}-snapshots", callbacks=callbacks)

    before = 2 if has_other else 0
    whole = script(make_learner("list"), "whole", Quiet())
    with pytest.raises(Dies):
        script(make_learner("list"), "cut", DieAt(before + 6))
    assert contents(tmp_path / "cut-snapshots").keys() == {"snapshot-001.pt"}
    later = make_learner("list")
    assert later.resume(tmp_path / "cut") == before
    script(later, "cut", Quiet())
    assert same(bits(later), bits(whole))
    assert len(later.ensemble()) == 3
