"""What the objective cannot measure: each is refused with the reason and a way out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.landscape.objective import Objective
from tests.landscape.kinds_of_models import CLASSES, batches_for


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2.0


class OnceModule(nn.Module):
    def forward(self, x):
        return Once.apply(x).tanh()


def test_what_cannot_be_differentiated_twice_is_named():
    model = nn.Sequential(nn.Linear(4, 5), OnceModule(), nn.Linear(5, CLASSES))
    objective = Objective(model, F.cross_entropy, batches_for("mlp"))
    objective.gradient()
    with pytest.raises(ArgumentError) as caught:
        objective.product(objective.zeros())
    assert str(caught.value) == (
        "model must be differentiable twice for its curvature, got OnceModule '1': trying to differentiate twice a "
        "function that was marked with @once_differentiable; exchange that part for one made of plain torch operations"
    )


class Reused(nn.Module):
    """Calls the same layer before and after what cannot be differentiated twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.layer(Once.apply(self.layer(x)).tanh()))


class Wrapped(nn.Module):
    """Takes its input by name and returns its output in a dict."""

    def forward(self, *, hidden):
        return {"hidden": Once.apply(hidden).tanh()}


class Wrapping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.part, self.head = nn.Linear(4, 4), Wrapped(), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.part(hidden=self.layer(x))["hidden"])


def once_cross_entropy(outputs, targets):
    return F.cross_entropy(Once.apply(outputs), targets)


@pytest.mark.parametrize(
    ("model", "loss_fn", "culprit"),
    [
        (
            nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, CLASSES)),
            once_cross_entropy,
            "a loss_fn that is not",
        ),
        (
            nn.Sequential(
                nn.Linear(4, 5),
                nn.BatchNorm1d(5),
                nn.Tanh(),
                nn.Sequential(nn.Linear(5, 4), OnceModule()),
                nn.Linear(4, CLASSES),
            ),
            F.cross_entropy,
            "OnceModule '3.1'",
        ),
        (Reused(), F.cross_entropy, "Reused"),
        (Wrapping(), F.cross_entropy, "Wrapped 'part'"),
    ],
)
def test_not_another_part_is_named_for_it(model, loss_fn, culprit):
    objective = Objective(model, loss_fn, batches_for("mlp"))
    with pytest.raises(ArgumentError, match=f"for its curvature, got {culprit}: trying to differentiate twice"):
        objective.product(objective.zeros())


def test_a_models_own_exception_passes_through():
    class Failing(nn.Linear):
        def forward(self, x):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Objective(Failing(4, CLASSES), F.cross_entropy, batches_for("mlp")).product(torch.zeros(15))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            (nn.Linear(1, 1), F.mse_loss, iter([])),
            ArgumentTypeError,
            "batches must be iterable more than once, got the one-shot iterator list_iterator, whose batches would be "
            "lost; pass the loader itself, with an __iter__ that makes a new iterator, or list(...) of a few batches",
        ),
        (
            (nn.Linear(1, 1), F.mse_loss, (torch.ones(1, 1), torch.ones(1, 1))),
            ArgumentError,
            "batches must be a list of batches, got the tensors of a single one; pass [(inputs, targets)]",
        ),
        (
            (nn.Linear(1, 1), F.mse_loss, [1]),
            ArgumentError,
            "batches must yield batches (inputs, targets) or dicts, got int 1; "
            "have it yield both, for an autoencoder (x, x)",
        ),
        (
            (nn.Linear(1, 1), F.mse_loss, [[torch.ones(1, 1)]]),
            ArgumentError,
            "batches must yield batches (inputs, targets) or dicts, got a list of 1 item(s); "
            "have it yield both, for an autoencoder (x, x)",
        ),
        (
            (nn.Linear(1, 1).requires_grad_(False), F.mse_loss, [(torch.ones(1, 1), torch.ones(1, 1))]),
            ArgumentError,
            "model must have a parameter that requires a gradient, got none; "
            "unfreeze the part that is to be measured: parameter.requires_grad_(True)",
        ),
        (
            (nn.Linear(1, 1), 3, [(torch.ones(1, 1), torch.ones(1, 1))]),
            ArgumentTypeError,
            "loss_fn must be a function (outputs, targets) -> scalar tensor, got int 3; "
            "pass for example torch.nn.functional.cross_entropy",
        ),
    ],
)
def test_bad_arguments(arguments, kind, message):
    with pytest.raises(kind) as caught:
        Objective(*arguments)
    assert str(caught.value) == message


def test_a_loss_without_a_gradient():
    objective = Objective(nn.Linear(1, 1), lambda a, b: (a - b).detach().sum(), [(torch.ones(1, 1), torch.ones(1, 1))])
    with pytest.raises(ArgumentError) as caught:
        objective.gradient()
    assert str(caught.value) == (
        "loss_fn must return a loss that depends on the parameters, got one without a gradient; "
        "leave out detach(), item(), argmax() and no_grad() on the way to it"
    )
