"""Models that use torch.func inside are measured as those that say the same without it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.transforms import is_stand_in

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(16, 4, generator=GENERATOR), torch.randn(16, 1, generator=GENERATOR)) for _ in range(2)]


class Potential(nn.Module):
    """Returns the derivative of a network by the first input, or along all of them, taken in one of several ways."""

    def __init__(self, derivative):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        self.derivative = derivative

    def forward(self, inputs):
        return self.derivative(self.network, self.first(inputs))


def by_autograd(network, inputs):
    return torch.autograd.grad(network(inputs).sum(), inputs, create_graph=True)[0]


def by_grad(network, inputs):
    return vmap(grad(lambda row: network(row).squeeze(-1)))(inputs)


def by_jacobian(network, inputs):
    return vmap(jacrev(network))(inputs).squeeze(1)


def by_forward_derivatives(network, inputs):
    columns = [jvp(network, (inputs,), (direction.expand_as(inputs),))[1] for direction in torch.eye(4)]
    return torch.cat(columns, dim=1)


def by_parameters(network, inputs):
    parameters = dict(network.named_parameters())
    return vmap(grad(lambda row: functional_call(network, parameters, (row,)).squeeze(-1)))(inputs)


def diagnosed(derivative):
    torch.manual_seed(0)
    model = Potential(derivative)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return cw.diagnose(
        model, lambda outputs, targets: F.mse_loss(outputs[:, :1], targets), BATCHES, optimizer=optimizer
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, at the first forward derivative
@pytest.mark.parametrize("derivative", [by_grad, by_jacobian, by_forward_derivatives, by_parameters])
def test_a_derivative_by_a_transform_is_measured_as_one_by_autograd(derivative):
    found, expected = diagnosed(derivative), diagnosed(by_autograd)
    for name in ("loss", "gradient_norm", "stability_limit", "best_step"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3)
    assert "network.0" in [layer.name for layer in expected.layers]
    assert not any(layer.name.startswith("network") for layer in found.layers)  # nothing is watched inside of it


class Stepwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(12, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs):
        def output(row):
            state = torch.zeros(8)
            for _ in range(6):
                state = torch.tanh(self.cell(torch.cat([row, state])))
            return self.head(state).squeeze(0)

        return vmap(grad(output))(inputs)[:, :1]


def test_a_recurrence_in_a_transform_is_none_that_is_measured():
    torch.manual_seed(0)
    diagnosis = cw.diagnose(Stepwise(), F.mse_loss, BATCHES)
    assert diagnosis.gradient_norm > 0.0
    assert diagnosis.recurrences == ()


def test_stand_ins_are_told_from_tensors():
    seen = []
    for transform in (vmap, grad, lambda f: vmap(grad(f))):
        transform(lambda rows: seen.append(is_stand_in(rows)) or rows.sum())(torch.ones(2, 3))
    assert seen == [True, True, True]
    assert not is_stand_in(nn.Parameter(torch.ones(2)))
