"""A loss function that is none is refused at every door, by its own name and not by that of the targets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.paths import barrier
from cyclewise.stepping import Step
from cyclewise.training.ensemble import Ensemble

MODEL = nn.Linear(3, 2)
BATCHES = [(torch.randn(8, 3), torch.randint(2, (8,)))]


class OwnLoss(nn.Module):
    def forward(self, outputs, targets):
        return F.cross_entropy(outputs, targets)


def sgd():
    return torch.optim.SGD(MODEL.parameters(), lr=0.1)


DOORS = {
    "lr_find": lambda loss_fn: cw.lr_find(MODEL, sgd(), loss_fn, BATCHES),
    "diagnose": lambda loss_fn: cw.diagnose(MODEL, loss_fn, BATCHES),
    "Learner": lambda loss_fn: cw.Learner(MODEL, cw.Data(BATCHES), loss_fn=loss_fn),
    "Watch": lambda loss_fn: cw.Watch().start(MODEL, sgd(), loss_fn),
    "Step": lambda loss_fn: Step(MODEL, sgd(), loss_fn),
    "Objective": lambda loss_fn: Objective(MODEL, loss_fn, BATCHES),
    "barrier": lambda loss_fn: barrier(MODEL, MODEL, loss_fn, BATCHES),
    "Ensemble": lambda loss_fn: Ensemble(MODEL, [MODEL.state_dict()], cw.Data(BATCHES), loss_fn=loss_fn),
    "short_run": lambda loss_fn: cw.short_run(loss_fn, BATCHES, BATCHES, max_lr=0.1),
    "loss_after": lambda loss_fn: cw.loss_after(loss_fn, BATCHES, BATCHES, lr=0.1),
    "HeldOutLoss": lambda loss_fn: cw.HeldOutLoss(loss_fn, BATCHES),
    "GradientBalance": lambda loss_fn: cw.GradientBalance(loss_fn, BATCHES),
    "Subspace": lambda loss_fn: cw.Subspace(MODEL, 1, directions="gradient", loss_fn=loss_fn, batches=BATCHES),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    ("loss_fn", "got"),
    [
        (nn.CrossEntropyLoss, "the class CrossEntropyLoss; pass an instance of it, nn.CrossEntropyLoss()"),
        (OwnLoss, "the class OwnLoss; pass an instance of it, OwnLoss()"),
        ("mse", "str 'mse'; pass for example torch.nn.functional.cross_entropy"),
    ],
)
def test_what_is_no_function_is_refused_by_name(door, loss_fn, got):
    with pytest.raises(cw.ArgumentTypeError) as caught:
        door(loss_fn)
    assert str(caught.value) == f"loss_fn must be a function (outputs, targets) -> scalar tensor, got {got}"


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), OwnLoss(), F.cross_entropy])
def test_instances_and_functions_are_taken(loss_fn):
    inputs, targets = BATCHES[0]
    with torch.no_grad():
        expected = float(loss_fn(MODEL(inputs), targets))
    assert cw.diagnose(MODEL, loss_fn, BATCHES).loss == pytest.approx(expected)
