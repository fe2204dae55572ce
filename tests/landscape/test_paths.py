"""Barriers between two models: known valleys and hills, batch norm, noise, records, and no trace."""

import copy
import json
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

import cyclewise as cw
from cyclewise.landscape.paths import read


class Well(nn.Module):
    """Loss (w^2 - 1)^2 * scale, whose minima are -1 and 1, plus a tilt."""

    def __init__(self, place, tilt=0.0):
        super().__init__()
        self.place = nn.Parameter(torch.tensor([place]))
        self.tilt = tilt

    def forward(self, scale):
        return scale * ((self.place**2 - 1.0) ** 2 + self.tilt * (self.place + 1.0))


def own_loss(outputs, targets):
    return outputs.mean()


def well_batches(scales=(0.9, 1.0, 1.1)):
    return [(torch.full((2, 1), scale), torch.zeros(2, 1)) for scale in scales]


def test_a_double_well():
    barrier = cw.barrier(Well(-1.0), Well(1.0), own_loss, well_batches(), num_points=5)
    assert barrier.positions == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert barrier.losses == pytest.approx((0.0, 0.5625, 1.0, 0.5625, 0.0))
    assert barrier.height == pytest.approx(1.0)
    assert barrier.height_std_error == pytest.approx(0.1 / math.sqrt(3))
    assert (barrier.position, barrier.distinct, barrier.same_loss, barrier.num_batches) == (0.5, True, True, 3)
    assert str(barrier) == "barrier of 1 ± 0.058 at 0.5 between losses 0 and 0: distinct minima of the same loss"


def test_height_is_above_the_straight_line_between_the_ends():
    barrier = cw.barrier(Well(-1.0, tilt=0.2), Well(1.0, tilt=0.2), own_loss, well_batches(), num_points=5)
    assert barrier.losses[-1] == pytest.approx(0.4)
    assert barrier.height == pytest.approx(1.0)
    assert barrier.difference == pytest.approx(0.4)
    assert barrier.same_loss is False
    assert str(barrier).endswith("distinct minima of different losses")


def test_a_convex_loss_has_no_barrier():
    torch.manual_seed(1)
    batches = [(torch.randn(16, 3), torch.randn(16, 1)) for _ in range(4)]
    barrier = cw.barrier(nn.Linear(3, 1), nn.Linear(3, 1), F.mse_loss, batches)
    assert (barrier.height, barrier.position, barrier.distinct) == (0.0, None, False)
    assert len(barrier.losses) == 21


def trained(seed, batches, steps=300):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        optimizer.zero_grad()
        inputs, targets = batches[step % len(batches)]
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def spirals():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 2, generator=generator)
    targets = ((inputs[:, 0] * inputs[:, 1]) > 0).long()
    return [(inputs[i : i + 64], targets[i : i + 64]) for i in range(0, 256, 64)]


def test_two_starts_are_two_minima_and_one_start_is_one():
    batches = spirals()
    first, second = trained(1, batches), trained(2, batches)
    apart = cw.barrier(first, second, F.cross_entropy, batches)
    assert apart.distinct
    assert apart.height > 0.1
    later = copy.deepcopy(first)
    optimizer = torch.optim.SGD(later.parameters(), lr=0.05)
    for inputs, targets in batches:
        optimizer.zero_grad()
        F.cross_entropy(later(inputs), targets).backward()
        optimizer.step()
    together = cw.barrier(first, later, F.cross_entropy, batches)
    assert not together.distinct
    assert "one valley, two points" in str(together)


def test_the_same_network_with_its_units_permuted():
    batches = spirals()
    model = trained(1, batches)
    permuted = copy.deepcopy(model)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        permuted[0].weight.copy_(model[0].weight[order])
        permuted[0].bias.copy_(model[0].bias[order])
        permuted[2].weight.copy_(model[2].weight[:, order])
    barrier = cw.barrier(model, permuted, F.cross_entropy, batches)
    assert barrier.losses[0] == pytest.approx(barrier.losses[-1], abs=1e-5)
    assert barrier.distinct
    assert barrier.same_loss is True


def batch_norm_net(scale):
    """One function, written with weights of a different scale before its batch norm, and so other statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[0].weight.mul_(scale)
        model[0].bias.mul_(scale)
    return model


def test_batch_norm_gathers_its_statistics_anew_at_every_point():
    torch.manual_seed(2)
    batches = [(torch.randn(64, 4), torch.randn(64, 1)) for _ in range(3)]
    models = [batch_norm_net(1.0), batch_norm_net(30.0)]
    for model in models:
        for _ in range(20):
            for inputs, _ in batches:
                model(inputs)
    barrier = cw.barrier(*models, F.mse_loss, batches)
    # All points on the line are the same function, so interpolated statistics would be seen as a hill or a slope.
    assert max(barrier.losses) - min(barrier.losses) < 1e-3 * barrier.losses[0]
    assert not barrier.distinct


def test_batch_norm_frozen_at_the_same_statistics_stays_frozen():
    models = [batch_norm_net(1.0), batch_norm_net(30.0)]
    batches = [(torch.randn(64, 4), torch.randn(64, 1)) for _ in range(2)]
    barrier = cw.barrier(*models, F.mse_loss, batches)
    models[1].eval()
    expected = sum(F.mse_loss(models[1](inputs), targets).item() for inputs, targets in batches) / 2
    assert barrier.losses[-1] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_overflows_is_an_infinite_barrier():
    class Hole(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.place = nn.Parameter(torch.tensor([place]))

        def forward(self, inputs):
            return inputs * self.place.abs().log().neg()

    barrier = cw.barrier(Hole(-1.0), Hole(1.0), own_loss, well_batches(), num_points=3)
    assert barrier.losses == (0.0, math.inf, 0.0)
    assert (barrier.height, barrier.height_std_error, barrier.distinct) == (math.inf, None, True)
    described = barrier.to_dict()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert cw.Barrier.from_dict(described) == barrier


def test_noise_decides():
    positions = [0.0, 0.5, 1.0]
    noisy = read(positions, [[1.0, 1.0, 1.0, 1.0], [0.5, 1.9, 0.6, 1.4], [0.7, 1.5, 0.8, 1.2]])
    assert noisy.height > 0.02
    assert not noisy.distinct
    assert noisy.same_loss is True
    clear = read(positions, [[1.0, 1.1], [2.0, 2.11], [1.0, 1.1]])
    assert clear.distinct
    single = read(positions, [[1.0], [2.0], [1.1]])
    assert (single.height_std_error, single.same_loss) == (None, None)
    assert str(single) == "barrier of 0.95 at 0.5 between losses 1 and 1.1: distinct minima"


def test_no_trace_on_either_model():
    models = [batch_norm_net(1.0), batch_norm_net(2.0)]
    models[0].train()
    models[1].eval()
    batches = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(2)]
    for model in models:
        F.mse_loss(model(batches[0][0]), batches[0][1]).backward()
    before = [copy.deepcopy(model.state_dict()) for model in models]
    gradients = [parameters_to_vector([p.grad for p in model.parameters()]).clone() for model in models]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*batches[0]), batch_size=4, shuffle=True, generator=torch.Generator()
    )
    loader_state, state = loader.generator.get_state(), torch.get_rng_state()
    cw.barrier(*models, F.mse_loss, loader, num_points=3)
    for model, values, gradient in zip(models, before, gradients, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        assert torch.equal(parameters_to_vector([p.grad for p in model.parameters()]), gradient)
    assert [model.training for model in models] == [True, False]
    assert torch.equal(loader_state, loader.generator.get_state())
    assert torch.equal(state, torch.get_rng_state())


def test_an_exception_of_the_loss_passes_after_the_restore():
    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    before = copy.deepcopy(models[0].state_dict())
    error = RuntimeError("the user's own")

    def failing(outputs, targets):
        raise error

    with pytest.raises(RuntimeError) as caught:
        cw.barrier(*models, failing, [(torch.ones(2, 2), torch.ones(2, 1))])
    assert caught.value is error
    assert all(torch.equal(value, before[name]) for name, value in models[0].state_dict().items())
    assert models[0].training


def test_dict_batches_tied_and_frozen_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens, labels):
            return {"loss": F.cross_entropy(self.head(self.embedding(tokens)), labels)}

    models = [Tied().requires_grad_(False), Tied().requires_grad_(False)]
    tokens = torch.arange(7)
    barrier = cw.barrier(*models, None, [{"tokens": tokens, "labels": tokens}], num_points=3)
    weight = (models[0].head.weight + models[1].head.weight) / 2
    assert barrier.losses[1] == pytest.approx(F.cross_entropy(weight @ weight.T, tokens).item(), rel=1e-5)


def test_pages_and_pictures():
    barrier = cw.barrier(Well(-1.0), Well(1.0), own_loss, well_batches())
    assert "Between two solutions" in barrier._repr_html_()
    assert barrier.section().conclusion.endswith("an ensemble averages their predictions instead.")
    assert len(barrier.plot().axes) == 1


BATCHES = [(torch.ones(1, 2), torch.ones(1, 1))]


@pytest.mark.parametrize(
    ("models", "arguments", "error", "message"),
    [
        (
            (nn.Linear(2, 1), nn.Linear(3, 1)),
            {},
            cw.ArgumentError,
            "model_b must have the shapes of model_a, got weight of shape (1, 3) instead of (1, 2); "
            "give both the same architecture",
        ),
        (
            (nn.Linear(2, 1), nn.Linear(2, 1, bias=False)),
            {},
            cw.ArgumentError,
            "model_b must have the parameters of model_a, got bias only in model_a; give both the same architecture",
        ),
        (
            (nn.Linear(2, 1), {}),
            {},
            cw.ArgumentTypeError,
            "model_b must be a torch.nn.Module, got dict {}; pass the two models that are to be compared",
        ),
        (
            (nn.Linear(2, 1), nn.Linear(2, 1)),
            {"num_points": 2},
            cw.ArgumentError,
            "num_points must be a whole number of at least 3, got 2; pass for example 21",
        ),
        (
            (nn.Linear(2, 1), nn.Linear(2, 1)),
            {"loss_fn": 3},
            cw.ArgumentTypeError,
            "loss_fn must be a function (outputs, targets) -> scalar tensor, got int 3; "
            "pass for example torch.nn.functional.cross_entropy",
        ),
        (
            (nn.Linear(2, 1), nn.Linear(2, 1)),
            {"batches": BATCHES[0]},
            cw.ArgumentError,
            "batches must be a list of batches, got the tensors of a single one; pass [(inputs, targets)]",
        ),
    ],
)
def test_refusals(models, arguments, error, message):
    arguments = {"loss_fn": F.mse_loss, "batches": BATCHES} | arguments
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        cw.barrier(*models, arguments.pop("loss_fn"), arguments.pop("batches"), **arguments)


def test_another_record_is_refused():
    with pytest.raises(cw.ArgumentError) as caught:
        cw.Barrier.from_dict({"record": "History", "version": 1})
    assert str(caught.value) == (
        "values must describe a Barrier of version 1, got record='History', version=1; pass what to_dict() returned"
    )
