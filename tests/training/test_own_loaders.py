"""Loaders of one's own that count their passes: a run that was cut off goes on in the order of one that was not."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

import cyclewise as cw
from tests.training.cut_off import bits, same

INPUTS = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] > 0).long()


class Counting:
    """Draws the order of each pass from its number."""

    def __init__(self, make=int):
        self.num_passes = make(0)

    def __len__(self):
        return 5

    def __iter__(self):
        self.num_passes += 1
        order = np.random.default_rng(int(self.num_passes)).permutation(80)
        return iter([(INPUTS[order[i : i + 16]], TARGETS[order[i : i + 16]]) for i in range(0, 80, 16)])


class CountingAtTheEnd(Counting):
    def __iter__(self):
        yield from super().__iter__()
        self.num_passes += 1


class Stateful(Counting):
    """Goes on in the middle of a pass by itself; one that has come to its end begins anew."""

    num_batches = 0

    def __iter__(self):
        first = self.num_batches % 5
        if first == 0:
            self.num_passes += 1
        order = np.random.default_rng(self.num_passes).permutation(80)
        for i in range(first, 5):
            self.num_batches = i + 1
            rows = order[16 * i : 16 * i + 16]
            yield INPUTS[rows], TARGETS[rows]

    def state_dict(self):
        torch.rand(())  # some draw to tell it
        return {"num_passes": self.num_passes, "num_batches": self.num_batches}

    def load_state_dict(self, state):
        self.num_passes, self.num_batches = state["num_passes"], state["num_batches"]


class Wrapping:
    """Passes on what the loader within it yields, two batches ahead."""

    def __init__(self, loader):
        self.parts = {"loader": loader}

    def __len__(self):
        return 5

    def __iter__(self):
        ahead = []
        for batch in self.parts["loader"]:
            ahead.append(batch)
            if len(ahead) == 3:
                yield ahead.pop(0)
        yield from ahead


class Interrupt(cw.Callback):
    at_step = None

    def on_step_end(self, learner, step, loss):
        if step == self.at_step:
            os.kill(os.getpid(), signal.SIGINT)


MAKERS = {
    "int": Counting,
    "NumPy's": lambda: Counting(np.int64),
    "at the end": CountingAtTheEnd,
    "with a state": Stateful,
    "wrapping one with a state": lambda: Wrapping(Wrapping(Stateful())),
    "wrapping arrays": lambda: Wrapping(
        cw.Data.from_arrays(INPUTS, TARGETS, valid_fraction=0.0, batch_size=16).train_loader
    ),
}


@pytest.mark.parametrize("at_step", [1, 4, 7, 9])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_order_goes_on(tmp_path, kind, at_step):
    def fit(cut=None, resumes=False):
        torch.manual_seed(0)
        learn = cw.Learner(nn.Linear(4, 2), MAKERS[kind](), progress=False)
        if resumes:
            assert learn.resume(tmp_path) == at_step + 1
        interrupt = Interrupt()
        interrupt.at_step = cut
        checkpoints = [cw.Checkpoint(tmp_path)] if resumes or cut is not None else []
        learn.fit(cw.Constant(lr=0.1, total_steps=17), callbacks=[interrupt, *checkpoints])
        return bits(learn)

    whole = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(cut=at_step)
    assert same(fit(resumes=True), whole)
