"""Whose checkpoints a directory holds: a run is never written over by another one, and what was cut off goes on."""

import re

import pytest
from torch import nn

import cyclewise as cw
from cyclewise.training import bundle
from tests.training.cut_off import LOADERS, DieAt, Dies, Quiet, bits, make_learner, same

POLICY = cw.Constant(lr=0.1, total_steps=8)


def fit(learn, directory, death=None, **options):
    learn.fit(POLICY, callbacks=[cw.Checkpoint(directory, **options), death or Quiet()])
    return learn


def contents(directory):
    return {path.name: (path / "state.pt").read_bytes() for path in directory.iterdir()}


def other_model():
    return cw.Learner(nn.Linear(6, 2), LOADERS["arrays"](), progress=False)


@pytest.mark.parametrize("make", [make_learner, other_model])
@pytest.mark.parametrize("call", [None, "load", "save"])
def test_another_run_is_not_written_over(tmp_path, make, call):
    fit(make_learner(), tmp_path, keep=1)
    learn = make()
    if call == "save" or (call == "load" and make is make_learner):
        getattr(learn, call)(tmp_path)  # takes what is there, or writes beside it, and is no part of that run
    before = contents(tmp_path)
    weights, history = bits(learn), learn.history
    with pytest.raises(cw.CheckpointError) as caught:
        fit(learn, tmp_path, keep=1)
    last = bundle.find(tmp_path)[-1]
    assert str(caught.value) == (
        f"directory must hold no other run, got {str(tmp_path)!r} with {len(before)} checkpoint(s) of one that this "
        f"Learner has not resumed, the last at step {last.step}; call learn.resume({str(tmp_path)!r}) before the first "
        "fit to go on with it, or pass another directory"
    )
    assert contents(tmp_path) == before
    assert same(bits(learn), weights)
    assert learn.history == history
    assert fit(learn, tmp_path / "another", keep=1).num_steps == history.num_steps + 8


def test_a_script_that_is_started_again_goes_on(tmp_path):
    def script(death):
        learn = make_learner()
        learn.resume(tmp_path)
        fit(learn, tmp_path, death, every_steps=1, keep=1)
        return fit(learn, tmp_path, death, every_steps=1, keep=1)

    with pytest.raises(Dies), pytest.warns(UserWarning, match="there is no complete checkpoint"):
        script(DieAt(3))
    with pytest.raises(Dies):
        script(DieAt(12))
    whole = fit(fit(make_learner(), tmp_path / "whole"), tmp_path / "whole")
    assert same(bits(script(Quiet())), bits(whole))


def test_a_directory_is_the_same_by_any_name(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    fit(make_learner(), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    learn = make_learner()
    learn.resume("link")
    assert fit(fit(learn, "run"), tmp_path / "run" / ".." / "link").num_steps == 16


def test_what_was_saved_by_hand_is_the_run_s_own(tmp_path):
    learn = make_learner()
    learn.save(tmp_path)
    assert fit(learn, tmp_path).num_steps == 8


def test_one_checkpoint_is_resumed_from_and_the_run_goes_on_beside_it(tmp_path):
    learn = fit(make_learner(), tmp_path, every_steps=4, keep=10)
    one = bundle.find(tmp_path)[0]
    later = make_learner()
    assert later.resume(one.path) == 4
    with pytest.raises(cw.CheckpointError) as caught:
        fit(later, one.path, every_steps=4)
    assert str(caught.value) == (
        f"directory must be the folder of a run, got that of a single checkpoint, {str(one.path)!r}; pass the one it "
        f"lies in, {str(tmp_path)!r}, to go on with its run, or another directory"
    )
    fit(later, tmp_path, every_steps=4)
    assert same(bits(later), bits(learn))


def test_a_directory_of_a_resumed_run_is_no_licence_for_others(tmp_path):
    for name in ("one", "two"):
        fit(make_learner(), tmp_path / name)
    learn = make_learner()
    learn.resume(tmp_path / "one")
    learn.fit(POLICY)
    two = re.escape(repr(str(tmp_path / "two")))
    with pytest.raises(cw.CheckpointError, match=f"^directory must hold no other run, got {two} with "):
        learn.fit(POLICY, callbacks=[cw.Checkpoint(tmp_path / "one"), cw.Checkpoint(tmp_path / "two")])
    assert fit(learn, tmp_path / "one").num_steps == 16


def test_a_run_that_began_there_meanwhile_is_not_mixed_with(tmp_path):
    other = make_learner()

    class Begins(cw.Callback):
        def on_step_end(self, learner, step, loss):
            if step == 2:
                fit(other, tmp_path, keep=1)

    learn = make_learner()
    with pytest.raises(cw.CheckpointError, match=r"^directory must hold no other run, got .* call learn\.resume\("):
        learn.fit(POLICY, callbacks=[Begins(), cw.Checkpoint(tmp_path, every_steps=4)])
    later = make_learner()
    assert later.resume(tmp_path) == 8
    assert same(bits(later), bits(other))


def test_two_runs_that_begin_at_the_same_moment_are_told(tmp_path, monkeypatch):
    write = bundle.write

    def both(directory, state, *, step, about):
        write(directory, state, step=step + 1, about=about)
        monkeypatch.setattr(bundle, "write", write)
        return write(directory, state, step=step, about=about)

    monkeypatch.setattr(bundle, "write", both)
    with pytest.raises(cw.CheckpointError) as caught:
        fit(make_learner(), tmp_path, every_steps=4)
    assert str(caught.value) == (
        f"directory must be that of one run, got {str(tmp_path)!r}, where another one has just written its first "
        "checkpoint too; start one of them again in another directory"
    )
    assert [item.step for item in bundle.find(tmp_path)] == [5]
