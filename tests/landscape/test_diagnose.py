"""The door: right numbers against the dense Hessian, no trace, exceptions unchanged, what could not be had says why."""

import copy
import json
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.landscape.findings import KINDS
from cyclewise.landscape.unavailable import Unavailable


def make_task(optimizer_class=torch.optim.SGD, num_samples=96, **options):
    torch.manual_seed(0)
    inputs = torch.randn(num_samples, 6)
    targets = (inputs @ torch.randn(6, 3)).argmax(dim=1)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))
    return model, optimizer_class(model.parameters(), **{"lr": 0.1, **options}), loader


def bits(model, optimizer, loader):
    return (
        {n: (id(p), p.detach().numpy().tobytes(), p.requires_grad,
             None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())) for n, p in model.named_parameters()},
        {n: (id(b), b.numpy().tobytes()) for n, b in model.named_buffers()},
        repr(copy.deepcopy(optimizer.state_dict())),
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
    )  # fmt: skip


def step_once(model, optimizer, loader):
    inputs, targets = next(iter(loader))
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def dense_hessian(model, loss_fn, batches):
    weights = list(model.parameters())
    loss = torch.stack([loss_fn(model(x), y) for x, y in batches]).mean()
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, weights, create_graph=True)])
    rows = [torch.cat([r.reshape(-1) for r in torch.autograd.grad(g, weights, retain_graph=True)]) for g in gradient]
    return gradient.detach(), torch.stack(rows).detach()


def test_numbers_are_those_of_the_dense_hessian():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    batches = [(torch.randn(20, 5).double(), torch.randn(20, 1).double()) for _ in range(3)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    d = cw.diagnose(model, F.mse_loss, batches, optimizer=optimizer)
    g, hessian = dense_hessian(model, F.mse_loss, batches)
    values = torch.linalg.eigvalsh(hessian)
    along = float(g @ hessian @ g)
    assert d.gradient_norm == pytest.approx(float(g.norm()))
    assert d.curvature_along_gradient == pytest.approx(along)
    assert d.best_step == pytest.approx(float(g @ g) / along)
    assert d.sharpness.value == pytest.approx(float(values[-1]))
    assert d.lambda_min.value == pytest.approx(float(values[0]))
    assert d.trace.value == pytest.approx(float(values.sum()))
    assert d.condition_number == pytest.approx(float(values[-1] / values[values > 1e-12].min()))
    assert d.stability_limit == pytest.approx(2 * 1.9 / float(values[-1]))
    assert d.noise_scale > 0
    assert d.taylor.predicted[0] == pytest.approx(d.taylor.actual[0], rel=0.05)


@pytest.mark.parametrize(("optimizer_class", "options"), [
    (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {"lr": 1e-3}), (torch.optim.LBFGS, {}),
])  # fmt: skip
@pytest.mark.parametrize("is_training", [True, False])
def test_no_trace_is_left_and_the_bits_repeat(optimizer_class, options, is_training):
    model, optimizer, loader = make_task(optimizer_class, **options)
    if optimizer_class is not torch.optim.LBFGS:
        step_once(model, optimizer, loader)  # gradients, optimizer state and statistics that are not fresh
    model.train(is_training)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    before = bits(model, optimizer, loader)
    first = cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer, budget=80)
    assert bits(model, optimizer, loader) == before
    assert not steps
    assert first == cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer, budget=80)
    assert first.spent <= 80


class Boom(Exception):
    pass


def calls_of(**options):
    model, optimizer, loader = make_task(momentum=0.9)
    step_once(model, optimizer, loader)
    bits(model, optimizer, loader)  # whose arrays share the tensors' memory: such is only written to where it changed
    calls = []
    cw.diagnose(model, lambda o, t: (calls.append(1), F.cross_entropy(o, t))[1], loader, optimizer=optimizer, **options)
    return len(calls)


@pytest.mark.parametrize("kind", ["exception", "ctrl-c"])
def test_an_exception_at_any_call_passes_and_leaves_no_trace(kind):
    num_calls = calls_of(budget=60)
    model, optimizer, loader = make_task(momentum=0.9)
    step_once(model, optimizer, loader)
    before = bits(model, optimizer, loader)
    for failing in sorted({1, 2, 3, num_calls, *np.linspace(4, num_calls, 9).astype(int).tolist()}):
        error, calls = Boom(), []

        def loss_fn(outputs, targets, *, calls=calls, error=error, failing=failing):
            calls.append(1)
            if len(calls) == failing:
                if kind == "ctrl-c":
                    os.kill(os.getpid(), signal.SIGINT)
                else:
                    raise error
            return F.cross_entropy(outputs, targets)

        with pytest.raises(KeyboardInterrupt if kind == "ctrl-c" else Boom) as caught:
            cw.diagnose(model, loss_fn, loader, optimizer=optimizer, budget=60)
        assert kind == "ctrl-c" or caught.value is error
        assert bits(model, optimizer, loader) == before, failing


def test_the_loaders_order_goes_on_as_if_nothing_had_happened():
    model, optimizer, loader = make_task()
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(loader.dataset, batch_size=32, shuffle=True, generator=generator)
    state = generator.get_state()
    cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer, budget=10)
    assert torch.equal(generator.get_state(), state)


def unexplained(d):
    """Return the attributes that are None without an enumerated reason."""
    return {n for n, v in vars(d).items() if v is None and not isinstance(d.unavailable.get(n), Unavailable)}


def test_what_could_not_be_had_is_none_and_says_why():
    model, _, loader = make_task()
    d = cw.diagnose(model, F.cross_entropy, list(loader)[:1], budget=30)
    assert d.stability_limit is None
    assert d.unavailable["stability_limit"] is Unavailable.NO_OPTIMIZER
    assert d.unavailable["journey"] is Unavailable.NO_START
    assert d.why("journey") == "no start was given"
    assert d.why("loss") is None
    assert unexplained(d) == set()


@pytest.mark.parametrize("budget", [10, 20, 40, 60])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
def test_the_budget_is_kept_and_what_it_cost_is_said(budget, optimizer_class):
    model, optimizer, loader = make_task(optimizer_class)
    step_once(model, optimizer, loader)
    d = cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer, budget=budget, start=model.state_dict())
    assert 0 < d.spent <= budget
    assert sum(d.settings["spent_on"].values()) == pytest.approx(d.spent)
    assert d.gradient_norm > 0
    assert unexplained(d) == set()


class OnlyOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2


def test_without_second_derivatives_the_rest_is_measured():
    class Doubled(nn.Module):
        def forward(self, x):
            return OnlyOnce.apply(x)

    model = nn.Sequential(nn.Linear(3, 4), Doubled(), nn.Linear(4, 1))
    d = cw.diagnose(model, F.mse_loss, [(torch.randn(16, 3), torch.randn(16, 1))])
    assert d.sharpness is None
    assert d.unavailable["sharpness"] is Unavailable.NOT_TWICE
    assert "Doubled" in d.details["sharpness"]
    assert d.why("sharpness") == d.details["sharpness"]
    assert unexplained(d) == set()
    again = cw.Diagnosis.from_dict(json.loads(json.dumps(d.to_dict(), allow_nan=False)))
    assert again.unavailable["sharpness"] is Unavailable.NOT_TWICE
    assert (again.unavailable, again.details) == (d.unavailable, d.details)
    assert "Doubled" in d._repr_html_()
    assert d.gradient_norm > 0
    assert d.noise_scale is None or d.noise_scale > 0
    assert d.layers


def test_a_gradient_that_is_not_finite_is_said():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    d = cw.diagnose(model, lambda o, t: (o - t).square().sum(1).sqrt().mean(), [(torch.ones(4, 2), torch.zeros(4, 1))])
    assert d.sharpness is None
    assert d.unavailable["sharpness"] is Unavailable.GRADIENT_NOT_FINITE
    assert unexplained(d) == set()
    json.dumps(d.to_dict(), allow_nan=False)


def test_one_sample_has_no_noise_scale():
    model = nn.Linear(3, 1)
    d = cw.diagnose(model, F.mse_loss, [(torch.randn(1, 3), torch.randn(1, 1))])
    assert d.noise_scale is None
    assert d.unavailable["noise_scale"] is d.unavailable["signal"] is Unavailable.ONE_SAMPLE
    assert d.unavailable["noise_scale_std_error"] is Unavailable.ONE_SAMPLE


def test_a_loss_that_is_not_finite_is_said_and_nothing_is_made_up():
    model = nn.Linear(3, 1)
    d = cw.diagnose(model, F.mse_loss, [(torch.full((4, 3), float("nan")), torch.zeros(4, 1))])
    assert d.sharpness is None
    assert d.unavailable["sharpness"] is Unavailable.LOSS_NOT_FINITE
    assert unexplained(d) == set()
    json.dumps(d.to_dict(), allow_nan=False)


def dead_step():
    model = nn.Linear(3, 1)
    return model, torch.optim.LBFGS(model.parameters())


@pytest.mark.parametrize(("make", "targets", "expected"), [
    (lambda: (nn.Linear(3, 1), None), torch.zeros(8, 1), {"own_step": "NO_OPTIMIZER", "lr": "NO_OPTIMIZER",
     "flow_factor": "FEW_LAYERS", "update_factor": "FEW_WEIGHTS", "recurrences": "NO_RECURRENCE"}),
    (dead_step, torch.zeros(8, 1), {"own_step": "NEEDS_CLOSURE", "stability_limit": "UNKNOWN_OPTIMIZER"}),
    (lambda: (nn.Linear(3, 1), torch.optim.SGD(nn.Linear(2, 1).parameters())), torch.zeros(8, 1),
     {"own_step": "OTHER_PARAMETERS", "stability_limit": "OTHER_PARAMETERS"}),
    (lambda: ((model := nn.Linear(3, 1)), torch.optim.Adam(model.parameters())), torch.zeros(8, 1),
     {"stability_limit": "NO_STATE"}),
    # All weights and targets are zero: nothing moves.
    (lambda: (nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(4))).apply(silenced), None),
     torch.zeros(8, 3), {"flow_factor": "NO_GRADIENT", "taylor": "ZERO_GRADIENT", "noise_scale": "NO_GRADIENT",
                         "condition_number": "NO_POSITIVE_EIGENVALUE"}),
])  # fmt: skip
def test_each_cause_has_its_reason(make, targets, expected):
    torch.manual_seed(0)
    model, optimizer = make()
    d = cw.diagnose(model, F.mse_loss, [(torch.randn(8, 3), targets)], optimizer=optimizer, budget=60)
    assert {name: d.unavailable[name].name for name in expected} == expected
    assert unexplained(d) == set()
    assert cw.Diagnosis.from_dict(json.loads(json.dumps(d.to_dict(), allow_nan=False))) == d


def silenced(module):
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.weight)


@pytest.mark.parametrize("dict_batches", [False, True])
def test_several_inputs_and_dict_batches(dict_batches):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, a, b, labels=None):
            output = self.layer(a + b)
            return output if labels is None else {"loss": F.mse_loss(output, labels)}

    tensors = torch.randn(8, 2), torch.randn(8, 2), torch.randn(8, 1)
    if dict_batches:
        batch, loss_fn = dict(zip(("a", "b", "labels"), tensors, strict=True)), lambda output, _: output["loss"]
    else:
        batch, loss_fn = tensors, F.mse_loss
    d = cw.diagnose(Sum(), loss_fn, [batch])
    assert d.sharpness.value > 0
    assert d.lambda_min.value > -1e-4


def test_the_way_from_the_start_is_looked_at():
    model, optimizer, loader = make_task(momentum=0.9)
    start = copy.deepcopy(model.state_dict())
    for _ in range(20):
        optimizer.zero_grad()
        step_once(model, optimizer, loader)
    before = bits(model, optimizer, loader)
    d = cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer, start=start)
    assert bits(model, optimizer, loader) == before
    distance = sum((p.detach() - start[n]).square().sum() for n, p in model.named_parameters()).sqrt()
    assert d.journey.displacement == pytest.approx(float(distance), rel=1e-4)
    assert d.journey.losses[0] > d.journey.losses[-1]
    assert d.journey.angle < 90
    assert d.plane.path[-1] == (0.0, 0.0)


@pytest.mark.parametrize(("noise", "kinds"), [(0.02, []), (8.0, ["saddle"])])
def test_the_same_gradient_on_negative_curvature_is_a_saddles_only_within_its_noise(noise, kinds):
    class Place(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.0, 0.0, 10.0]))

        def forward(self, pull):
            move = self.weight - torch.tensor([0.0, 0.0, 10.0])
            return 1.0 + 0.5 * (move**2 @ torch.tensor([4.0, -1.0, 1.0])) - pull @ move

    generator = torch.Generator().manual_seed(0)
    scatter = torch.randn(256, 3, generator=generator)
    pull = torch.tensor([0.3, 0.0, 0.0]) + noise * (scatter - scatter.mean(0))
    d = cw.diagnose(Place(), lambda outputs, _: outputs.mean(), [(pull, torch.zeros(256))])
    assert d.gradient_norm == pytest.approx(0.3, rel=1e-4)
    assert [f.kind for f in d.findings if f.kind != "noise_dominated"] == kinds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 3}, "budget must be a whole number of at least 10, got 3; 200 is a good number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1; pass 0"),
        (
            {"start": 3},
            "start must be a model or a state dict, got int 3; "
            "copy it before training: copy.deepcopy(model.state_dict())",
        ),
        ({"optimizer": 3}, "optimizer must be a torch.optim.Optimizer, got int 3; leave it out, or pass yours"),
    ],
)
def test_bad_arguments_name_the_way_out(arguments, message):
    model, _, loader = make_task()
    with pytest.raises(cw.CyclewiseError) as caught:
        cw.diagnose(model, F.cross_entropy, loader, **arguments)
    assert str(caught.value) == message


def test_batches_that_can_be_read_once_are_refused():
    model, _, loader = make_task()
    with pytest.raises(cw.ArgumentTypeError, match="batches must be iterable more than once, got the one-shot"):
        cw.diagnose(model, F.cross_entropy, iter(loader))


def test_the_record_goes_to_json_and_back_and_draws():
    model, optimizer, loader = make_task()
    d = cw.diagnose(model, F.cross_entropy, loader, optimizer=optimizer)
    again = cw.Diagnosis.from_dict(json.loads(json.dumps(d.to_dict(), allow_nan=False)))
    assert again == d
    assert hash(again) == hash(d)
    assert len(d.plot().axes) >= 5
    assert all(finding.kind in KINDS for finding in d.findings)
    page = again._repr_html_()
    for title in ("Loss along directions", "Spectrum of the Hessian", "Gradient flow", "A slice of the landscape"):
        assert title in page


def test_foreign_json_is_refused():
    with pytest.raises(cw.ArgumentError) as caught:
        cw.Diagnosis.from_dict({"record": "History"})
    assert str(caught.value) == (
        "values must describe a Diagnosis of version 2, got record='History', version=None; "
        "pass what to_dict() returned"
    )


def test_the_learner_passes_its_own(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(200, 4)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=20)
    learn = cw.Learner(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), data)
    fresh = learn.diagnose(num_batches=3, budget=40)
    assert fresh.unavailable["journey"] is Unavailable.NO_START
    learn.fit_one_cycle(2, 0.05)
    before = bits(learn.model, learn.optimizer, None)
    d = learn.diagnose(num_batches=3)
    assert bits(learn.model, learn.optimizer, None) == before
    assert d.journey is not None
    assert d.settings["num_batches"] == 3
    assert d.stability_limit is not None
    path = cw.write_html([learn.history, d], tmp_path / "report.html")
    assert "What stands in the way" in path.read_text()
