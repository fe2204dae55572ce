import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cyclewise import ArgumentError, ArgumentTypeError, DivergedError
from cyclewise.loaders import Batches
from cyclewise.stepping import Step, batch_loss, evaluating, split_batch, to_device


class Adder(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, a, b=0.0):
        return self.scale * (a + b)


def test_inputs_reach_the_model_by_their_kind():
    model, a, b, target = Adder(), torch.ones(3), torch.full((3,), 2.0), torch.zeros(3)
    for batch, loss in [
        ((a, target), 1.0),
        ([a, target], 1.0),
        (((a, b), target), 9.0),
        (({"a": a, "b": b}, target), 9.0),
        ((a, b, target), 9.0),
    ]:
        assert batch_loss(model, F.mse_loss, batch).item() == loss


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs, labels):
        logits = self.layer(inputs)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def test_dict_batches_bring_their_own_loss_or_take_a_function():
    model = WithLoss()
    batch = {"inputs": torch.randn(4, 2), "labels": torch.tensor([0, 1, 0, 1])}
    own = batch_loss(model, None, batch)
    given_ = batch_loss(model, lambda output, batch: F.cross_entropy(output["logits"], batch["labels"]), batch)
    assert own.item() == given_.item()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: batch_loss(Adder(), F.mse_loss, (torch.ones(2),)),
            "train_loader must yield batches (inputs, targets) or dicts, got a tuple of 1 item(s); "
            "have it yield both, for an autoencoder (x, x), or pass train_step= with your own update",
        ),
        (
            lambda: batch_loss(Adder(), lambda o, t: o - t, (torch.ones(2), torch.zeros(2))),
            "loss_fn must return a scalar tensor, got a tensor of shape (2,); "
            'average it, for example reduction="mean"',
        ),
        (
            lambda: batch_loss(Adder(), lambda o, t: 0.5, (torch.ones(2), torch.zeros(2))),
            "loss_fn must return a scalar tensor, got float 0.5; return the loss alone, and not its .item()",
        ),
        (
            lambda: batch_loss(Adder(), None, (torch.ones(2), torch.zeros(2))),
            "loss_fn must be a function for batches of (inputs, targets), got None; "
            "pass for example torch.nn.functional.cross_entropy",
        ),
        (
            lambda: batch_loss(Adder(), None, {"a": torch.ones(2)}),
            "loss_fn must be a function (output, batch) -> scalar tensor when the model's output has no .loss, "
            "got None and an output of type Tensor; pass loss_fn=",
        ),
        (
            lambda: Step(Adder(), torch.optim.SGD([torch.zeros(1)], lr=1.0), F.mse_loss, accumulation_steps=0),
            "accumulation_steps must be a whole number of at least 1, got 0; pass 1 for an update after every batch",
        ),
        (lambda: Batches([]).take(1), "train_loader must yield at least one batch, got an empty one; "
         "check the size of the data set, and drop_last with a batch larger than it"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_with_a_way_out(call, message):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Batches(iter([1])),
            "train_loader must be iterable more than once, got the one-shot iterator list_iterator, "
            "whose batches would be lost; pass the loader itself, with an __iter__ that makes a new "
            "iterator, or list(...) of a few batches",
        ),
        (
            lambda: Batches(3),
            "train_loader must be an iterable of batches, got int 3; "
            "pass a torch.utils.data.DataLoader or a list of batches",
        ),
        (
            lambda: Step(Adder(), "sgd", F.mse_loss),
            "optimizer must be a torch.optim.Optimizer, got str 'sgd'; "
            "make one first, for example torch.optim.SGD(model.parameters(), lr=0.1)",
        ),
        (
            lambda: Step(Adder(), torch.optim.SGD([torch.zeros(1)], lr=1.0), "mse"),
            "loss_fn must be a function (outputs, targets) -> scalar tensor, got str 'mse'; "
            "pass for example torch.nn.functional.cross_entropy",
        ),
    ],
)
def test_wrong_kinds_are_refused_with_a_way_out(call, message):
    with pytest.raises(ArgumentTypeError, match=re.escape(message)):
        call()


def batches_of(sizes):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator)) for size in sizes]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad])
def test_a_step_is_what_one_would_write_by_hand(optimizer_class):
    models = [nn.Linear(3, 1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours, theirs = (optimizer_class(model.parameters(), lr=0.1) for model in models)
    step = Step(models[0], ours, F.mse_loss)
    for inputs, targets in batches_of([4] * 5):
        loss = step([(inputs, targets)])
        expected = F.mse_loss(models[1](inputs), targets)
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        assert loss.item() == expected.item()
        assert not loss.requires_grad
    assert torch.equal(models[0].weight, models[1].weight)


@given(st.integers(1, 5))
def test_accumulation_equals_the_larger_batch(num_batches):
    models = [nn.Linear(3, 1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    batches = batches_of([4] * num_batches)
    small = Step(models[0], torch.optim.SGD(models[0].parameters(), lr=0.1), F.mse_loss)
    large = Step(models[1], torch.optim.SGD(models[1].parameters(), lr=0.1), F.mse_loss)
    loss = small(batches)
    whole = large([tuple(torch.cat(parts) for parts in zip(*batches, strict=True))])
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_lbfgs_gets_its_closure():
    model = nn.Linear(3, 1)
    step = Step(model, torch.optim.LBFGS(model.parameters(), lr=0.5), F.mse_loss)
    batch = batches_of([32])
    losses = [step(batch).item() for _ in range(3)]
    assert losses[0] > 1.05 * losses[1]
    assert losses[1] >= losses[2]


def test_autocast_and_scaler_are_used_and_a_skipped_update_is_said():
    model = nn.Linear(3, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    seen = []

    def loss_fn(outputs, targets):
        seen.append(outputs.dtype)
        return F.mse_loss(outputs.float(), targets)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, optimizer, loss_fn, autocast_dtype=torch.bfloat16, scaler=scaler)
    step(batches_of([4]))
    assert (seen, step.skipped) == ([torch.bfloat16], False)
    before = model.weight.detach().clone()
    step([(torch.full((1, 3), float("inf")), torch.zeros(1, 1))])
    assert step.skipped
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(("scale", "factor"), [(2.0**-149, 0.5), (2.0**-149, 0.9), (0.0, 0.5)])
def test_a_scale_that_has_come_down_to_nothing_is_an_error(scale, factor):
    model = nn.Linear(3, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=factor)
    step = Step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.mse_loss, scaler=scaler)
    before = model.weight.detach().clone()
    with pytest.raises(DivergedError) as caught:
        step([(torch.full((1, 3), float("inf")), torch.zeros(1, 1))])
    assert str(caught.value) == (
        f"the scale of the gradient scaler must stay above 1e-38, got {scaler.get_scale()}: the gradients are not "
        'finite at any scale; look for NaN in the inputs, or train with mixed_precision="bf16"'
    )
    assert torch.equal(model.weight, before)


def test_modes_come_back_also_after_an_exception():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, True, False]


def test_batches_keep_their_kind_on_the_way_to_a_device():
    from collections import namedtuple

    Pair = namedtuple("Pair", "inputs targets")
    moved = to_device(Pair({"a": torch.ones(1)}, ["text", (torch.zeros(2), 3)]), torch.device("meta"))
    assert isinstance(moved, Pair)
    assert moved.inputs["a"].device.type == "meta"
    assert (moved.targets[0], moved.targets[1][1]) == ("text", 3)
    assert split_batch(moved) == (moved.inputs, moved.targets)
