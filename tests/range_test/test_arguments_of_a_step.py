"""Arguments that lr_find would otherwise have ignored, or failed on in a way that names nothing."""

import re

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cyclewise as cw

BATCHES = [(torch.ones(4, 2), torch.ones(4, 1)) for _ in range(4)]


def find(**arguments):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return cw.lr_find(model, optimizer, **{"train_loader": BATCHES, **arguments})


def own_step(batch):
    return 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train_step": own_step, "accumulation_steps": 4},
            "accumulation_steps must be left out when train_step= is given, got int 4; accumulate in train_step",
        ),
        (
            {"train_step": own_step, "autocast_dtype": torch.bfloat16},
            "autocast_dtype must be left out when train_step= is given, got dtype torch.bfloat16; use "
            "torch.autocast in train_step",
        ),
        (
            {"loss_fn": nn.MSELoss(), "eval_step": own_step},
            "eval_step must be left out without train_step=, got a function; held-out batches are scored with loss_fn",
        ),
        (
            {"loss_fn": nn.MSELoss(), "autocast_dtype": "bfloat16"},
            "autocast_dtype must be a torch.dtype, got str 'bfloat16'; pass torch.bfloat16",
        ),
        (
            {"loss_fn": nn.MSELoss(), "scaler": 3},
            "scaler must be a torch.amp.GradScaler, got int 3; pass torch.amp.GradScaler()",
        ),
        ({"loss_fn": nn.MSELoss(), "also": 3}, "also must be a list of objects, got int 3; pass also=[ema]"),
        (
            {"loss_fn": nn.MSELoss(), "train_loader": TensorDataset(torch.ones(4, 2), torch.ones(4, 1))},
            "train_loader must be batches, got a TensorDataset of samples; pass DataLoader(dataset, batch_size=64)",
        ),
        (
            {"loss_fn": nn.MSELoss(), "valid_loader": (torch.tensor(1.0), torch.tensor(2.0))},
            "valid_loader must yield batches (inputs, targets) or dicts, got Tensor tensor(1.); have it yield both, "
            "for an autoencoder (x, x)",
        ),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(cw.CyclewiseError, match=f"^{re.escape(message)}$"):
        find(**arguments)


def test_an_optimizer_of_another_model_is_refused_by_name():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(
        cw.ArgumentError, match=r"^optimizer must own parameters of this model, got 2 that are not its;"
    ):
        cw.lr_find(nn.Linear(2, 1), optimizer, nn.MSELoss(), BATCHES)


def test_a_loss_function_may_have_parameters_of_its_own():
    class Scaled(nn.MSELoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return super().forward(outputs, targets) * self.scale.exp()

    model, loss_fn = nn.Linear(2, 1), Scaled()
    optimizer = torch.optim.SGD([*model.parameters(), *loss_fn.parameters()], lr=0.1)
    assert cw.lr_find(model, optimizer, loss_fn, BATCHES).num_steps > 0


def test_a_learner_names_the_options_that_it_has():
    learn = cw.Learner(nn.Linear(2, 1), BATCHES, loss_fn=nn.MSELoss(), progress=False)
    message = (
        "lr_find of a Learner must be given some of valid_loader, num_steps, total_steps, start_lr, end_lr, sweep, "
        "seed, also, progress, got nsteps; what the step is made of is set where the Learner is made"
    )
    with pytest.raises(cw.ArgumentTypeError, match=f"^{re.escape(message)}$"):
        learn.lr_find(nsteps=3)


def test_a_group_without_a_rate_is_named():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(cw.ArgumentTypeError) as caught:
        cw.lr_find(model, optimizer, nn.MSELoss(), BATCHES)
    assert str(caught.value) == (
        "optimizer must have a rate to sweep, got lr=None in group 0; give it a number, in Adafactor with "
        "relative_step=False"
    )
