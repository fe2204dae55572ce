"""The objective against the dense Hessian in float64, on every kind of layer, without a trace."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclewise.landscape.hvp import forward_over_reverse, reverse_over_reverse
from cyclewise.landscape.objective import Objective
from tests.landscape.kinds_of_models import MODELS, batches_for, make


def differences(objective, vector, step=1e-5):
    with objective.moved(vector, step):
        above = objective.gradient()
    with objective.moved(vector, -step):
        below = objective.gradient()
    return (above - below) / (2 * step)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_and_products_against_differences_in_float64(name):
    _, objective = make(name, dtype=torch.float64)
    vector = torch.randn(objective.num_parameters, dtype=torch.float64)
    with objective.moved(vector, 1e-6):
        above = objective.loss()
    with objective.moved(vector, -1e-6):
        below = objective.loss()
    assert float(objective.gradient() @ vector) == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-8)
    expected = differences(objective, vector)
    assert torch.allclose(objective.product(vector), expected, rtol=1e-4, atol=1e-7 * float(expected.norm()) + 1e-9)
    assert torch.equal(objective.product(vector), objective.product(vector))


@pytest.mark.parametrize("name", MODELS)
def test_every_form_gives_the_same_product(name):
    model, objective = make(name, dtype=torch.float64)
    vector = torch.randn(objective.num_parameters, dtype=torch.float64)
    expected = objective.product(vector)
    scale = float(expected.norm())
    without = Objective(model, objective.loss_fn, objective.batches, dtype=torch.float64, most_bytes=0)
    assert float((without.product(vector) - expected).norm()) <= 1e-10 * scale
    rows = objective.products(torch.stack([vector, 2.0 * vector, torch.zeros_like(vector)]))
    assert float((rows - torch.stack([expected, 2.0 * expected, 0 * vector])).norm()) <= 1e-10 * scale
    parts = objective.split(vector)
    for form in ("reverse", "forward"):
        total = objective.zeros()
        for index in range(objective.num_batches):
            with objective.still(index, twice=True):
                if form == "reverse":
                    product = reverse_over_reverse(objective.batch_loss(index), objective.parameters, parts)
                else:
                    loss = lambda index=index: objective.batch_loss(index)  # noqa: E731
                    product = forward_over_reverse(objective.model, loss, objective.named, parts)
                total += objective.flatten(product) / objective.num_batches
        assert float((total - expected).norm()) <= 1e-10 * scale, form


def test_dense_hessian():
    model, objective = make("mlp", dtype=torch.float64)
    double = copy.deepcopy(model).double()
    names = [name for name, _ in double.named_parameters()]

    def loss(*values):
        parameters = dict(zip(names, values, strict=True))
        outputs = [(torch.func.functional_call(double, parameters, (x.double(),)), y) for x, y in objective.batches]
        return sum(F.cross_entropy(output, y) for output, y in outputs) / len(outputs)

    values = tuple(p.detach() for p in double.parameters())
    blocks = torch.autograd.functional.hessian(loss, values)
    sizes = [v.numel() for v in values]
    rows = [
        torch.cat([block.reshape(n, m) for block, m in zip(row, sizes, strict=True)], 1)
        for row, n in zip(blocks, sizes, strict=True)
    ]
    expected = torch.cat(rows)
    found = objective.products(torch.eye(objective.num_parameters, dtype=torch.float64))
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_no_trace(name, dtype):
    model = MODELS[name]()
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    before = copy.deepcopy(model.state_dict())
    identities = [id(p) for p in (*model.parameters(), *model.buffers())]
    states = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    batches = batches_for(name)
    torch.set_rng_state(states[2])
    objective = Objective(model, None if name == "dict" else F.cross_entropy, batches, dtype=dtype)
    vector = objective.gradient()
    objective.product(vector)
    objective.batch_losses()
    with pytest.raises(ZeroDivisionError), objective.moved(vector):
        objective.loss()
        raise ZeroDivisionError
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tobytes() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [id(p) for p in (*model.parameters(), *model.buffers())] == identities
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters() if p.requires_grad)


def test_each_batch_counts_the_same():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    batches = [(torch.ones(3, 1), torch.zeros(3, 1)), (torch.full((1, 1), 3.0), torch.zeros(1, 1))]
    objective = Objective(model, F.mse_loss, batches)
    assert objective.batch_losses() == [1.0, 9.0]
    assert objective.loss() == 5.0
    assert objective.gradient().tolist() == [10.0]
    assert objective.product(torch.ones(1)).tolist() == [10.0]


def test_a_fresh_batch_norm_gets_the_statistics_of_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[1].weight)
    inputs = torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])
    objective = Objective(model, lambda outputs, targets: outputs.mean(), [(x, x) for x in inputs])
    # Means 1 and 5, variances 2 and 2: the second batch lies (5 - 3) / sqrt(2) above the mean.
    assert objective.batch_losses() == pytest.approx([-(2**0.5), 2**0.5], rel=1e-4)
    assert model[0].num_batches_tracked == 0


def test_buffers_that_a_forward_pass_writes_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1.0
            return self.linear(x) * self.calls

    model = Counting()
    objective = Objective(model, F.mse_loss, [(torch.ones(2, 1), torch.zeros(2, 1))])
    assert objective.loss() == objective.loss()
    assert float(model.calls) == 0.0


def test_kept_graphs_follow_the_parameters():
    for dtype in (None, torch.float64):
        model, objective = make("mlp", dtype=dtype)
        vector = torch.randn(objective.num_parameters, dtype=objective.dtype)
        here = objective.product(vector)
        with objective.moved(vector, 0.1):
            there = objective.product(vector)
        assert not torch.allclose(here, there)
        assert torch.equal(objective.product(vector), here)
    model, objective = make("mlp")
    vector = torch.randn(objective.num_parameters)
    here = objective.product(vector)
    with torch.no_grad():
        model[0].weight.add_(0.1)
    there = Objective(model, F.cross_entropy, objective.batches).product(vector)
    assert not torch.allclose(here, there)
    assert torch.equal(objective.product(vector), there)


def test_costs():
    _, objective = make("mlp")
    objective.loss()
    assert objective.cost == pytest.approx(1 / 3)
    objective.gradient()
    assert objective.cost == pytest.approx(4 / 3)
    objective.batch_gradient(0)
    assert objective.cost == pytest.approx(4 / 3 + 0.5)
    first = objective.product(objective.zeros())
    before = objective.cost
    objective.product(first)
    assert objective.cost - before == pytest.approx(objective.product_cost())
