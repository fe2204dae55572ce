"""The objective against the dense Hessian in float64, on every kind of layer, without a trace."""

import copy
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.landscape.hvp import forward_over_reverse, reverse_over_reverse
from cyclewise.landscape.objective import Objective

CLASSES = 3


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=dropout, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, tokens):
        return self.head(self.layer(self.embedding(tokens)).mean(1))


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 12)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        q, k, v = self.query(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(2, 3, batch_first=True)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))[:, :CLASSES]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x, targets):
        return {"loss": F.cross_entropy(self.linear(x).tanh(), targets)}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(4, 4, CLASSES)

    def forward(self, a, b):
        return self.bilinear(a, b).tanh()


def frozen():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    model[0].weight.requires_grad_(False)
    return model


def seen_batchnorm():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES))
    for _ in range(3):
        model(torch.randn(8, 4) + 1.0)
    return model


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "frozen": frozen,
    "tied": Tied,
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, CLASSES)),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "seen batch norm": seen_batchnorm,
    "dropout": lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Dropout(0.5), nn.Linear(9, CLASSES)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(18, CLASSES)
    ),
    "attention": Attention,
    "attention, dropout": lambda: Attention(dropout=0.2),
    "fused attention": Fused,
    "rnn": lambda: Recurrent(nn.RNN),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "dict": Named,
    "two inputs": Pair,
}


def batches_for(name):
    batches = []
    for _ in range(2):
        x, targets = torch.randn(6, 4), torch.randint(CLASSES, (6,))
        if name.startswith("attention"):
            x = torch.randint(7, (6, 3))
        elif name == "fused attention":
            x = torch.randn(6, 3, 4)
        elif name in ("rnn", "lstm", "gru"):
            x = torch.randn(6, 5, 2)
        if name == "dict":
            batches.append({"x": x, "targets": targets})
        elif name == "two inputs":
            batches.append((x, torch.randn(6, 4), targets))
        else:
            batches.append((x, targets))
    return batches


def make(name, **settings):
    model = MODELS[name]()
    loss_fn = None if name == "dict" else F.cross_entropy
    return model, Objective(model, loss_fn, batches_for(name), **settings)


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
            "lost; pass the loader itself, or list(...) of a few batches",
        ),
        (
            (nn.Linear(1, 1), F.mse_loss, (torch.ones(1, 1), torch.ones(1, 1))),
            ArgumentError,
            "batches must be a list of batches, got the tensors of a single one; pass [(inputs, targets)]",
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


TWO_RANKS = """
import os, torch, torch.distributed as dist
from torch import nn
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.spectrum import spectrum

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
inputs, targets = torch.randn(12, 4), torch.randint(3, (12,))
model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))
batches = list(zip(inputs.split(4), targets.split(4)))
mine = batches[:1] if rank == 0 else batches[1:]
found = []
for chosen, parallel in ((mine, True), (batches, False)):
    if not parallel:
        dist.destroy_process_group()
    objective = Objective(nn.parallel.DistributedDataParallel(model) if parallel else model,
                          nn.functional.cross_entropy, chosen)
    found.append(torch.cat([torch.tensor([objective.loss()]), objective.gradient(),
                            objective.product(torch.arange(objective.num_parameters) / 10)]))
assert torch.allclose(*found, atol=1e-5), found
os._exit(0)
"""


@pytest.mark.slow
def test_two_ranks_measure_the_mean_over_all_their_batches(tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
