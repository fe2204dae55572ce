"""What a resume must not change: loaders that count their passes, wide optimizer state; ends; 16-bit averages."""

import pytest
import torch
from torch import nn

import cyclewise as cw
from tests.training.small_learner import CONSTANT, arrays, equal, make_learner, weights


class Counting:
    """Orders each pass by its number, and can go on in the middle of one."""

    def __init__(self):
        self.inputs, self.targets = arrays()
        self.epoch, self.index, self.goes_on = 0, 0, False

    def __iter__(self):
        if not self.goes_on:
            self.epoch, self.index = self.epoch + 1, 0
        self.goes_on = False
        order = torch.randperm(96, generator=torch.Generator().manual_seed(self.epoch)).split(16)
        while self.index < 6:
            self.index += 1
            yield self.inputs[order[self.index - 1]], self.targets[order[self.index - 1]]

    def state_dict(self):
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state):
        self.epoch, self.index, self.goes_on = state["epoch"], state["index"], state["index"] < 6


def test_a_loader_with_state_is_put_back_between_fits(tmp_path):
    two_epochs = cw.Constant(lr=0.1, total_steps=12)
    whole = make_learner(data=cw.Data(Counting()))
    whole.fit(two_epochs, callbacks=[cw.Checkpoint(tmp_path)])
    whole.fit(two_epochs)
    learn = make_learner(data=cw.Data(Counting()))
    learn.resume(tmp_path)
    learn.fit(two_epochs, callbacks=[cw.Checkpoint(tmp_path)])
    learn.fit(two_epochs)
    assert equal(weights(whole), weights(learn))


class Master(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.02})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state.setdefault("master", parameter.detach().float())
                state["master"].sub_(parameter.grad.float(), alpha=group["lr"])
                parameter.copy_(state["master"])


def test_optimizer_state_wider_than_its_parameters_stays_as_wide(tmp_path):
    inputs, targets = arrays()

    def make():
        torch.manual_seed(0)
        data = [(inputs[k : k + 16].bfloat16(), targets[k : k + 16]) for k in range(0, 96, 16)]
        return cw.Learner(nn.Linear(6, 2).bfloat16(), data, optimizer=Master, progress=False)

    first = make()
    first.fit(CONSTANT, callbacks=[cw.Checkpoint(tmp_path)])
    learn = make()
    learn.load(tmp_path)
    for one, other in zip(first.model.parameters(), learn.model.parameters(), strict=True):
        assert learn.optimizer.state[other]["master"].dtype == torch.float32
        assert torch.equal(first.optimizer.state[one]["master"], learn.optimizer.state[other]["master"])


def test_an_average_of_16_bit_weights_goes_all_the_way():
    learn = make_learner(model=nn.Linear(1, 1, bias=False).bfloat16())
    weight = next(learn.model.parameters()).detach()
    average = cw.WeightAverage(0.999)
    weight.fill_(1.0)
    average.on_fit_start(learn, 14_000)
    weight.fill_(1.5)
    for step in range(10_000, 14_000):
        average.on_step_end(learn, step, torch.tensor(0.0))
    average.on_fit_end(learn)
    # 1.5 - 0.5 * 0.999**4000 = 1.491; numbers of bfloat16 lie 0.0078 apart there.
    assert float(weight) == pytest.approx(1.491, abs=0.004)


def test_an_error_at_the_end_keeps_no_other_callback_from_ending():
    ended = []

    class End(cw.Callback):
        def on_fit_end(self, learner):
            ended.append(self)
            if len(ended) == 1:
                raise OSError("no room")

    learn = make_learner()
    callbacks = [End(), End()]
    with pytest.raises(OSError, match="no room"):
        learn.fit(CONSTANT, callbacks=callbacks)
    assert ended == callbacks
    assert learn.run is None
