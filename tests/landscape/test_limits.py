"""Each limit is run: the optimizer itself, on a quadratic, just below and just above."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from cyclewise.landscape.limits import Limit, stability_limit
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.spectrum import sharpness
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.velocity import VelocitySGD

EIGENVALUES = torch.tensor([9.0, 4.0, 1.0, 0.25, 0.0, 0.5], dtype=torch.float64)
ROTATION = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
HESSIAN = (ROTATION * EIGENVALUES) @ ROTATION.T


class Quadratic(nn.Module):
    """Half of w'Hw, with the parameters in two pieces."""

    def __init__(self, hessian=HESSIAN):
        super().__init__()
        start = 1e-3 * torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        self.first = nn.Parameter(start[:2].clone())
        self.second = nn.Parameter(start[2:].clone())
        self.register_buffer("hessian", hessian)

    def forward(self, x):
        w = torch.cat([self.first, self.second])
        return x.mean() * (w @ self.hessian @ w) / 2.0


def objective_of(model):
    return Objective(model, lambda output, target: output, [(torch.ones(1), torch.ones(1))])


def with_frozen_state(model, optimizer, **entries):
    """Give a state whose divisor stands still: it was made by a long history of gradients that were far larger."""
    generator = torch.Generator().manual_seed(3)
    for p in (model.first, model.second):
        state = optimizer.state[p]
        state["step"] = torch.tensor(1e6)
        for name, kind in entries.items():
            noise = torch.rand(p.shape, generator=generator, dtype=p.dtype)
            state[name] = torch.zeros_like(p) if kind == "zero" else 1e12 * (0.5 + noise)


def adam(cls, **settings):
    def make(model):
        optimizer = cls(model.parameters(), lr=1.0, betas=(0.9, 1.0 - 1e-12), **settings)
        with_frozen_state(model, optimizer, exp_avg="zero", exp_avg_sq="large")
        for p in (model.first, model.second):
            # The bias correction of such a long memory: as if all of it had been seen.
            optimizer.state[p]["step"] = torch.tensor(1e14, dtype=torch.float64)
            optimizer.state[p]["max_exp_avg_sq"] = 2.0 * optimizer.state[p]["exp_avg_sq"]
        return optimizer

    return make


def adamax(model):
    optimizer = torch.optim.Adamax(model.parameters(), lr=1.0, betas=(0.9, 1.0 - 1e-12))
    with_frozen_state(model, optimizer, exp_avg="zero", exp_inf="large")
    return optimizer


def rmsprop(model):
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1.0, alpha=1.0 - 1e-12, momentum=0.5, weight_decay=0.3)
    with_frozen_state(model, optimizer, square_avg="large", momentum_buffer="zero")
    return optimizer


def adagrad(model):
    optimizer = torch.optim.Adagrad(model.parameters(), lr=1.0)
    with_frozen_state(model, optimizer, sum="large")
    return optimizer


def groups(cls, first, second, **settings):
    return lambda model: cls([{"params": [model.first], **first}, {"params": [model.second], **second}], **settings)


def sgd(cls=torch.optim.SGD, **settings):
    return lambda model: cls(model.parameters(), lr=0.1, **settings)


def adamw_with_heavy_decay(model):
    optimizer = adam(torch.optim.AdamW)(model)
    first = optimizer.param_groups[0]
    optimizer.add_param_group({"params": [first["params"].pop()], "weight_decay": 0.0})
    first["weight_decay"] = 3e-6  # the divisor is of the order of 1e6
    return optimizer


OPTIMIZERS = {
    "gradient descent": sgd(),
    "heavy ball": sgd(momentum=0.9),
    "dampened": sgd(momentum=0.8, dampening=0.5),
    "Nesterov": sgd(momentum=0.9, nesterov=True),
    "L2": sgd(momentum=0.5, weight_decay=2.0),
    "L2 on one group": groups(torch.optim.SGD, {"weight_decay": 5.0}, {"weight_decay": 0.0}, lr=0.1, momentum=0.9),
    "two rates": groups(torch.optim.SGD, {"lr": 0.01}, {"lr": 0.1}, momentum=0.9, nesterov=True),
    "half of it": lambda model: torch.optim.SGD([model.second], lr=0.1),
    "velocity": sgd(VelocitySGD, momentum=0.9),
    "velocity, Nesterov": sgd(VelocitySGD, momentum=0.9, nesterov=True),
    "Adam": adam(torch.optim.Adam),
    "AMSGrad": adam(torch.optim.Adam, amsgrad=True),
    "Adam, L2": adam(torch.optim.Adam, weight_decay=1.0),
    "AdamW": adam(torch.optim.AdamW, weight_decay=1e-6),
    "AdamW, decay on one group": adamw_with_heavy_decay,
    "Adamax": adamax,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
}


def growth(make, factor, limit):
    """By what the gradient grows from step 20 on at a rate of `factor * limit`, up to step 300 or a hundredfold."""
    model = Quadratic()
    optimizer = make(model)
    fastest = max(group["lr"] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["lr"] *= factor * limit / fastest
    lengths = []
    for _ in range(300):
        optimizer.zero_grad()
        model(torch.ones(1, dtype=torch.float64)).backward()
        moved = [p.grad for group in optimizer.param_groups for p in group["params"]]
        lengths.append(float(torch.cat(moved).norm()))
        optimizer.step()
        # A gradient that has grown further changes what the optimizer divides by.
        if len(lengths) > 40 and max(lengths[-20:]) > 100.0 * max(lengths[:20]):
            break
    return max(lengths[-20:]) / max(lengths[:20])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_just_below_shrinks_and_just_above_grows(name):
    model = Quadratic()
    found = stability_limit(OPTIMIZERS[name](model), objective_of(model), max_products=6)
    assert found.reason is None
    assert growth(OPTIMIZERS[name], 0.97, found.value) < 1.0
    assert growth(OPTIMIZERS[name], 1.03, found.value) > 10.0


def test_formulas_in_numbers():
    model = Quadratic()
    known = sharpness(objective_of(model))
    for settings, expected in [
        ({}, 2.0 / 9.0),
        ({"momentum": 0.9}, 3.8 / 9.0),
        ({"momentum": 0.9, "dampening": 0.9}, 38.0 / 9.0),
        ({"momentum": 0.9, "nesterov": True}, 3.8 / 2.8 / 9.0),
        ({"weight_decay": 1.0}, 2.0 / 10.0),
    ]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **settings)
        objective = objective_of(model)
        assert stability_limit(optimizer, objective, sharpness=known).value == pytest.approx(expected, rel=1e-6)
        assert objective.cost == 0.0


def test_adam_uses_the_bias_corrections_of_its_step():
    model = Quadratic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, dtype=torch.float64)).backward()
        optimizer.step()
    squares = torch.cat([optimizer.state[p]["exp_avg_sq"] for p in model.parameters()])
    divisor = (1 - 0.9**3) * ((squares / (1 - 0.999**3)).sqrt() + 1e-8)
    root = divisor.rsqrt()
    top = torch.linalg.eigvalsh(root[:, None] * HESSIAN * root)[-1]
    found = stability_limit(optimizer, objective_of(model), max_products=6)
    assert found.value == pytest.approx(38.0 / float(top), rel=1e-6)


def test_no_trace():
    model = Quadratic()
    optimizer = adam(torch.optim.AdamW)(model)
    before = [p.clone() for p in model.parameters()]
    state = {id(p): {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    stability_limit(optimizer, objective_of(model))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for p, s in optimizer.state.items():
        assert all(torch.equal(v, state[id(p)][k]) for k, v in s.items())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda model: torch.optim.LBFGS(model.parameters()), Unavailable.UNKNOWN_OPTIMIZER),
        (lambda model: torch.optim.NAdam(model.parameters()), Unavailable.UNKNOWN_OPTIMIZER),
        (lambda model: torch.optim.Adam(model.parameters()), Unavailable.NO_STATE),
        (lambda model: torch.optim.Adagrad(model.parameters()), Unavailable.NO_STATE),
        (groups(torch.optim.SGD, {"momentum": 0.5}, {"momentum": 0.9}, lr=0.1), Unavailable.MIXED_GROUPS),
        (lambda model: torch.optim.SGD([torch.zeros(1)], lr=0.1), Unavailable.OTHER_PARAMETERS),
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), Unavailable.NO_CURVATURE),
    ],
)
def test_no_limit_says_why(make, reason):
    model = Quadratic()
    found = stability_limit(make(model), objective_of(model))
    assert (found.value, found.reason) == (None, reason)


def test_a_subclass_with_a_step_of_its_own_is_unknown():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Same(torch.optim.SGD):
        pass

    model = Quadratic()
    assert stability_limit(Own(model.parameters(), lr=0.1), objective_of(model)) == Limit(
        None, Unavailable.UNKNOWN_OPTIMIZER
    )
    assert stability_limit(Same(model.parameters(), lr=0.1), objective_of(model)).value == pytest.approx(2.0 / 9.0)


def test_the_first_optimizer_of_a_process_is_known_by_its_class_too():
    # torch wraps `step` in the class that is instantiated first, and subclasses find the wrapped one.
    program = (
        "import torch\n"
        "from cyclewise.landscape.limits import sharpness_limit\n"
        "weight = torch.zeros(1, requires_grad=True)\n"
        "print(sharpness_limit(torch.optim.AdamW([weight], lr=0.1, betas=(0.5, 0.9))))\n"
        "class Own(torch.optim.SGD):\n"
        "    def step(self, closure=None): pass\n"
        "print(sharpness_limit(Own([weight], lr=0.1)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "60.0\nNone\n"
