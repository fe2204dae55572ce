"""A callback that reads batches from the run's own loader: what was cut off goes on in the order it had."""

import pytest

import cyclewise as cw
from tests.training.cut_off import LOADERS, DieAt, Dies, Quiet, bits, make_learner, same

POLICY = cw.Constant(lr=0.1, total_steps=17)  # five steps in an epoch


class Reads(cw.Callback):
    def __init__(self, every):
        self.every = every

    def on_step_end(self, learner, step, loss):
        if step % self.every == self.every - 1:
            next(iter(learner.own_data.train_loader))


@pytest.mark.parametrize("cut_at", [6, 8, 10, 11])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("loader", sorted(LOADERS.keys() - {"workers"}))
def test_the_order_goes_on(tmp_path, loader, every, cut_at):
    def fit(learn, death, *callbacks):
        learn.fit(POLICY, callbacks=[Reads(every), death, *callbacks])
        return learn

    whole = fit(make_learner(loader), Quiet())
    checkpoint = cw.Checkpoint(tmp_path, every_steps=1)
    with pytest.raises(Dies):
        fit(make_learner(loader), DieAt(cut_at), checkpoint)
    later = make_learner(loader)
    assert later.resume(tmp_path) == cut_at - 1
    assert same(bits(fit(later, Quiet(), checkpoint)), bits(whole))
