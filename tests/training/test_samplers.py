"""Samplers with a state of their own: a run that was cut off goes on with the order of one that was not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

import cyclewise as cw
from cyclewise.training.samplers import sampler_state, set_sampler_state

INPUTS = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True))


class Seeded(Sampler):
    """Counts its passes, and draws each from their number."""

    def __init__(self, make=int):
        self.epoch = make(0)

    def __iter__(self):
        self.epoch += 1
        return iter(np.random.default_rng(int(self.epoch)).permutation(len(DATA)).tolist())

    def __len__(self):
        return len(DATA)


class Shuffling(Seeded):
    """Shuffles the order of the pass before."""

    def __init__(self, make):
        super().__init__()
        self.order = make(range(len(DATA)))

    def __iter__(self):
        self.epoch += 1
        permutation = np.random.default_rng(self.epoch).permutation(len(DATA))
        self.order[:] = (
            [int(self.order[i]) for i in permutation] if isinstance(self.order, list) else (self.order[permutation])
        )
        return iter([int(i) for i in self.order])


class WithState(Seeded):
    """Says itself what its state is."""

    def __init__(self):
        self._hidden = object()
        self.passes = [0, object()]

    def __iter__(self):
        self.passes[0] += 1
        return iter(np.random.default_rng(self.passes[0]).permutation(len(DATA)).tolist())

    def state_dict(self):
        return {"passes": self.passes[0]}

    def load_state_dict(self, state):
        self.passes[0] = state["passes"]


class InBatches(Seeded):
    def __iter__(self):
        order = list(super().__iter__())
        return iter([order[i : i + 16] for i in range(0, len(order), 16)])

    def __len__(self):
        return len(DATA) // 16


class Odd(Seeded):
    """Holds what cannot be written in place, or kept at all."""

    def __init__(self):
        super().__init__()
        self.swapped = np.arange(4, dtype=">i4")
        self.wide = np.arange(4, dtype=np.longdouble)
        self.fixed = np.broadcast_to(np.arange(4), (2, 4))
        self.spread = torch.ones(1, 4).expand(3, 4)
        self.weight = nn.Parameter(torch.ones(2))
        self.order = None
        self.left = np.arange(len(DATA))
        self.long = list(range(20_000))

    def __iter__(self):
        self.order = np.arange(len(DATA)) if self.order is None else self.order
        np.random.default_rng(self.epoch).shuffle(self.order)
        self.left = self.left[:-1]
        return super().__iter__()


MAKERS = {
    "counter": lambda: {"sampler": Seeded(), "batch_size": 16},
    "numpy counter": lambda: {"sampler": Seeded(np.int64), "batch_size": 16},
    "tensor counter": lambda: {"sampler": Seeded(torch.tensor), "batch_size": 16},
    "array": lambda: {"sampler": Shuffling(np.array), "batch_size": 16},
    "list": lambda: {"sampler": Shuffling(list), "batch_size": 16},
    "tensor": lambda: {"sampler": Shuffling(lambda order: torch.tensor(list(order))), "batch_size": 16},
    "own state": lambda: {"sampler": WithState(), "batch_size": 16},
    "odd": lambda: {"sampler": Odd(), "batch_size": 16},
    "batch sampler": lambda: {"batch_sampler": InBatches()},
    "within torch's": lambda: {"batch_sampler": torch.utils.data.BatchSampler(Seeded(), 16, drop_last=False)},
}


class Cut(cw.Callback):
    at_step = None

    def on_step_end(self, learner, step, loss):
        if step == self.at_step:
            raise KeyboardInterrupt


def train(directory, kind, *, cut=None, resumes=False):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    learn = cw.Learner(model, cw.Data(DataLoader(DATA, **MAKERS[kind]())), loss_fn=F.mse_loss,
                       optimizer=torch.optim.SGD(model.parameters(), lr=0.1), progress=False)  # fmt: skip
    if resumes:
        learn.resume(directory)
    callback = Cut()
    callback.at_step = cut
    learn.fit(cw.Constant(lr=0.02, total_steps=12), callbacks=[callback, cw.Checkpoint(directory, every_steps=3)])
    return model.weight.detach().clone()


@pytest.mark.parametrize("cut", [6, 9])  # in the middle of a pass, and at its end
@pytest.mark.parametrize("kind", MAKERS)
def test_the_order_goes_on(tmp_path, kind, cut):
    whole = train(tmp_path / "whole", kind)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", kind, cut=cut)
    assert torch.equal(train(tmp_path / "cut", kind, resumes=True), whole)


def test_what_cannot_be_written_in_place_is_put_in_its_place():
    first, second = Odd(), Odd()
    list(first)
    state = sampler_state(first)
    assert {"wide", "long"}.isdisjoint(state)
    set_sampler_state(second, state)
    assert second.epoch == 1
    assert isinstance(second.order, np.ndarray)
    assert (second.order == first.order).all()
    assert (len(second.left), type(second.left)) == (len(DATA) - 1, np.ndarray)
    assert torch.equal(second.spread, first.spread)
    list(first)
    assert not (state["order"]["NumPy array"].numpy() == first.order).all()
