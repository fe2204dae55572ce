"""Accumulation over passes whose last group is short: the loader is asked for more than it has before the step."""

import os
import signal

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from tests.training.cut_off import bits, same

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))  # batches of 16: all full, four a pass
SET = TensorDataset(INPUTS, (INPUTS[:, 0] > 0).long())


class WithState:
    """Begins anew after its end, as torchdata's loaders do."""

    def __init__(self):
        self.num_passes = self.num_batches = 0

    def __len__(self):
        return 4

    def __iter__(self):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(self.num_passes))
        while self.num_batches < 4:
            self.num_batches += 1
            indices = order[16 * (self.num_batches - 1) : 16 * self.num_batches]
            yield INPUTS[indices], SET.tensors[1][indices]
        self.num_passes, self.num_batches = self.num_passes + 1, 0

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


class Interrupt(cw.Callback):
    at_step = None

    def on_step_end(self, learner, step, loss):
        if step == self.at_step:
            os.kill(os.getpid(), signal.SIGINT)


LOADERS = {
    "own generator": lambda: DataLoader(SET, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "global generator": lambda: DataLoader(SET, batch_size=16, shuffle=True),
    "state": WithState,
    "arrays": lambda: cw.Data.from_arrays(INPUTS, SET.tensors[1], batch_size=16, valid_fraction=0.0).train_loader,
}


@pytest.mark.parametrize("at_step", [0, 1, 2, 3])  # two updates a pass, the second of one batch
@pytest.mark.parametrize("loader", LOADERS)
def test_ctrl_c_at_the_end_of_a_pass_goes_on_in_the_same_order(tmp_path, loader, at_step):
    def fit(cut=None, resumes=False):
        torch.manual_seed(0)
        learn = cw.Learner(nn.Linear(6, 2), LOADERS[loader](), accumulation_steps=3, progress=False)
        if resumes:
            assert learn.resume(tmp_path) == at_step + 1
        interrupt = Interrupt()
        interrupt.at_step = cut
        callbacks = [interrupt] if cut is None and not resumes else [interrupt, cw.Checkpoint(tmp_path)]
        learn.fit(cw.Constant(lr=0.1, total_steps=7), callbacks=callbacks)
        return bits(learn), [epoch.step for epoch in learn.history.epochs]

    whole, epochs = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(cut=at_step)
    resumed, its_epochs = fit(resumes=True)
    assert same(resumed, whole)
    assert its_epochs == epochs
