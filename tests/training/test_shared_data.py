"""One Data for several Learners: each begins with the first pass, whoever has read the batches before or meanwhile."""

import os
import signal

import pytest
import torch

import cyclewise as cw
from tests.training.small_learner import CONSTANT, arrays, equal, make_learner, weights


def test_two_learners_of_one_data_see_the_same_batches():
    data = cw.Data.from_arrays(*arrays(), batch_size=16)
    first, second = make_learner(data=data), make_learner(data=data)
    first.fit(CONSTANT)
    second.fit(CONSTANT)
    assert equal(weights(first), weights(second))
    assert data.train_loader.num_passes == 0


def test_one_data_has_one_fingerprint(monkeypatch):
    calls = []
    monkeypatch.setattr("cyclewise.training.data.fingerprint", lambda values: calls.append(values) or "the same")
    data = cw.Data.from_arrays(*arrays(), batch_size=16, valid_fraction=0.0)
    make_learner(data=data).fit(CONSTANT)
    make_learner(data=data).fit(CONSTANT)
    assert len(calls) == 1


class ReadsTheData(cw.Callback):
    """Goes through the training data in the middle of every epoch."""

    def __init__(self, die_at=None):
        self.die_at = die_at

    def on_step_end(self, learner, step, loss):
        if step % 3 == 1:
            assert all(len(batch) == 2 for batch in learner.data.train_loader)
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("die_at", [2, 4, 6])
def test_a_run_whose_callback_reads_the_training_data_is_resumed(tmp_path, die_at):
    whole = make_learner()
    whole.fit(CONSTANT, callbacks=[ReadsTheData()])
    with pytest.raises(KeyboardInterrupt):
        make_learner().fit(CONSTANT, callbacks=[ReadsTheData(die_at), cw.Checkpoint(tmp_path, every_steps=1)])
    resumed = make_learner()
    assert resumed.resume(tmp_path) == die_at + 1
    resumed.fit(CONSTANT, callbacks=[ReadsTheData(), cw.Checkpoint(tmp_path)])
    assert equal(weights(resumed), weights(whole))
    untouched = make_learner()
    untouched.fit(CONSTANT)
    assert equal(weights(untouched), weights(whole))
    assert torch.equal(torch.tensor(untouched.history.loss), torch.tensor(whole.history.loss))
