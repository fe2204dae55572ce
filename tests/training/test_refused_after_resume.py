"""A call that is refused after a resume uses nothing up: made again, corrected, it goes on from where the run was."""

import pytest

import cyclewise as cw
from tests.training.small_learner import CONSTANT, equal, make_learner, weights


class Kill(cw.Callback):
    def __init__(self, at=None):
        self.at = at

    def on_step_end(self, learner, step, loss):
        if step == self.at:
            raise OSError("killed")


def killed(directory):
    with pytest.raises(OSError, match="killed"):
        make_learner().fit(CONSTANT, callbacks=[Kill(6), cw.Checkpoint(directory, every_steps=4)])


def test_the_corrected_call_goes_on(tmp_path):
    whole = make_learner()
    whole.fit(CONSTANT)
    killed(tmp_path)
    learn = make_learner()
    assert 0 < learn.resume(tmp_path) < 10
    with pytest.raises(cw.CheckpointError, match="Constant"):
        learn.fit(cw.Constant(lr=0.2, total_steps=10), callbacks=[Kill(), cw.Checkpoint(tmp_path)])
    learn.fit(CONSTANT, callbacks=[Kill(), cw.Checkpoint(tmp_path)])
    assert equal(weights(whole), weights(learn))
    assert learn.history.num_steps == 10


def test_a_finished_fit_is_not_trained_again_after_a_refusal(tmp_path):
    first = make_learner()
    first.fit(CONSTANT, callbacks=[cw.Checkpoint(tmp_path)])
    learn = make_learner()
    learn.resume(tmp_path)
    with pytest.raises(cw.CheckpointError, match="Constant"):
        learn.fit(cw.Constant(lr=0.2, total_steps=10))
    learn.fit(CONSTANT)
    assert learn.history.num_steps == 10
    assert equal(weights(first), weights(learn))


def test_load_after_resume_begins_another_run(tmp_path):
    killed(tmp_path / "first")
    learn = make_learner()
    learn.resume(tmp_path / "first")
    learn.load(tmp_path / "first")
    history = learn.fit(cw.Constant(lr=0.2, total_steps=10), callbacks=[cw.Checkpoint(tmp_path / "second")])
    assert history.num_steps == 10


@pytest.mark.parametrize("after", [0, 1])
def test_a_refused_fit_is_no_part_of_the_history(after):
    learn = make_learner()
    for _ in range(after):
        learn.fit(CONSTANT)
    history, last = learn.history, learn._last_fit
    with pytest.raises(cw.ArgumentError, match=r"^cycle_ends must lie within the 10 steps of the fit"):
        learn.fit(CONSTANT, callbacks=[cw.Snapshots([20])])
    assert learn.history == history
    assert learn._last_fit is last
    assert learn.run is None
    learn.fit(CONSTANT)
    assert learn.history.policies == ("Constant(lr=0.1, total_steps=10)",) * (after + 1)


def test_a_fit_that_is_refused_where_it_was_cut_off_is_no_part_of_the_history(tmp_path):
    killed(tmp_path)
    learn = make_learner()
    learn.resume(tmp_path)
    with pytest.raises(cw.CheckpointError, match=r"^fit 1 of the saved run has the callbacks \['Kill', 'Checkpoint'\]"):
        learn.fit(CONSTANT, callbacks=[cw.Checkpoint(tmp_path)])
    assert learn.history.policies == ()
    learn.fit(CONSTANT, callbacks=[Kill(), cw.Checkpoint(tmp_path)])
    assert learn.history.policies == ("Constant(lr=0.1, total_steps=10)",)
