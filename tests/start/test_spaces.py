import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cyclewise as cw
from cyclewise.start import Choice, Coordinates, Draw, Space


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(n=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(16, 5, generator=generator), torch.randint(0, 3, (16,), generator=generator)) for _ in range(n)
    ]


def spaces(model):
    return {
        "gains": cw.LayerGains(model),
        "random": cw.Subspace(model, 3),
        "gradient": cw.Subspace(
            model, 3, directions="gradient", loss_fn=nn.functional.cross_entropy, batches=batches()
        ),
        "full": cw.FullSpace(model, radius=0.5),
        "scheme": cw.InitScheme(model, inputs=batches()[0][0]),
        "seeds": cw.Seeds(model),
        "product": cw.Product([cw.InitScheme(model), cw.LayerGains(model), cw.LayerGains(model)]),
    }


def draw_point(space, seed):
    generator = torch.Generator().manual_seed(seed)
    point = {}
    for variable in space.variables:
        if isinstance(variable, Coordinates):
            point[variable.name] = tuple((2 * torch.rand(variable.size, generator=generator) - 1).tolist())
        elif isinstance(variable, Choice):
            index = int(torch.randint(len(variable.options), (1,), generator=generator))
            point[variable.name] = variable.options[index]
        else:
            assert isinstance(variable, Draw)
            point[variable.name] = seed
    return point


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", spaces(mlp()))
def test_a_space_leaves_its_model_alone_and_repeats_itself(name):
    model = mlp()
    before = copy.deepcopy(model)
    space = spaces(model)[name]
    state = torch.get_rng_state()
    assert same(space.candidate(), model)
    assert same(space.candidate(space.untouched()), model)
    point = draw_point(space, 1)
    first = space.candidate(point)
    assert first is not model
    assert not same(first, model)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7.0)
    assert same(space.candidate(point), space.candidate(point))
    assert same(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert space.describe() == str(space)


@pytest.mark.parametrize("name", spaces(mlp()))
def test_many_at_once_are_the_same_as_one_by_one(name):
    space = spaces(mlp())[name]
    points = [space.untouched(), *(draw_point(space, seed) for seed in range(1, 4))]
    stacked = space.stack(points)
    for row, point in enumerate(points):
        for key, parameter in space.candidate(point).named_parameters():
            torch.testing.assert_close(stacked[key][row], parameter, rtol=1e-6, atol=1e-7)


@given(st.floats(-1, 1), st.floats(0.01, 1.0), st.floats(1.001, 100.0))
@settings(max_examples=50)
def test_gains_are_log_scaled(place, lower, upper):
    space = cw.LayerGains(nn.Linear(2, 2), lower=lower, upper=upper)
    factor = space.factors({"gains": (place,)})["weight"]
    expected = math.exp(math.log(lower) + (place + 1) / 2 * (math.log(upper) - math.log(lower)))
    assert factor == pytest.approx(expected, rel=1e-9)
    (centre,) = space.untouched()["gains"]
    assert space.factors({"gains": (centre,)})["weight"] == pytest.approx(1.0, rel=1e-9)


def test_gains_vary_trained_matrices_alone():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(4, 3), nn.Linear(3, 3))
    model[3].weight.requires_grad_(False)
    assert cw.LayerGains(model).names == ("0.weight", "2.weight")
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    made = cw.LayerGains(tied).candidate({"gains": (1.0,)})
    assert made[0].weight is made[1].weight
    torch.testing.assert_close(made[0].weight, 10 * tied[0].weight)


def test_the_schemes_have_their_variances():
    model = nn.Sequential(nn.Linear(400, 300), nn.Conv2d(20, 30, 3))
    space = cw.InitScheme(model)
    assert space.kinds == ("linear", "convolution")
    (gains,) = (v for v in space.variables if v.name == "gains")
    for scheme, linear, convolution in (("he", 2 / 400, 2 / 180), ("xavier", 2 / 700, 2 / 450)):
        made = space.candidate({"linear": scheme, "convolution": scheme, "gains": gains.untouched})
        assert float(made[0].weight.detach().var()) == pytest.approx(linear, rel=0.05)
        assert float(made[1].weight.detach().var()) == pytest.approx(convolution, rel=0.06)
        assert torch.equal(made[0].bias, model[0].bias)
    made = space.candidate({"linear": "orthogonal", "convolution": "as it is", "gains": (1.0, gains.centre)})
    square = made[0].weight @ made[0].weight.T
    torch.testing.assert_close(square, 25 * torch.eye(300), atol=1e-3, rtol=1e-4)
    assert torch.equal(made[1].weight, model[1].weight)


@pytest.mark.parametrize(("layer", "inputs_per_output"), [
    (nn.ConvTranspose1d(256, 8, 3), 256 * 3),
    (nn.ConvTranspose2d(64, 80, 3, groups=4), 64 // 4 * 9),
    (nn.Conv2d(64, 80, 3, groups=4), 64 // 4 * 9),
])  # fmt: skip
def test_a_transposed_convolution_has_its_inputs_along_the_first_dimension(layer, inputs_per_output):
    space = cw.InitScheme(layer, vary_gain=False)
    made = space.candidate({"convolution": "he"})
    assert float(made.weight.detach().var()) == pytest.approx(2 / inputs_per_output, rel=0.05)
    for group in space.candidate({"convolution": "orthogonal"}).weight.detach().chunk(layer.groups):
        matrix = (group.transpose(0, 1) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else group).flatten(1)
        square = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(square, torch.eye(len(square)), atol=1e-4, rtol=1e-4)


def test_recurrent_layers_are_drawn_gate_by_gate():
    space = cw.InitScheme(nn.LSTM(6, 6), vary_gain=False)
    made = space.candidate({"recurrent": "orthogonal"})
    for block in made.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(block @ block.T, torch.eye(6), atol=1e-5, rtol=1e-5)


def test_lsuv_gives_every_layer_unit_variance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 5))
    inputs = torch.randn(500, 10)
    made = cw.InitScheme(model, inputs=inputs, vary_gain=False).candidate({"linear": "lsuv"})
    x = inputs
    for module in made:
        x = module(x)
        if isinstance(module, nn.Linear):
            assert float(x.detach().std()) == pytest.approx(1.0, abs=0.03)


def test_directions_of_gradients_are_those_of_the_batches():
    model = mlp()
    space = cw.Subspace(model, 1, directions="gradient", loss_fn=nn.functional.cross_entropy, batches=batches(1))
    ((x, y),) = batches(1)
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    made = space.candidate({"coordinates": (1.0,)})
    for before, after, gradient in zip(model.parameters(), made.parameters(), gradients, strict=True):
        change = (after - before).detach().flatten()
        cosine = torch.nn.functional.cosine_similarity(change, gradient.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-4)
    assert all(p.grad is None for p in model.parameters())


def test_a_direction_moves_each_tensor_by_its_own_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))
    with torch.no_grad():
        model[1].weight.mul_(100)
    made = cw.Subspace(model, 5, radius=0.5).candidate({"coordinates": (1.0, -1.0, 1.0, 1.0, -1.0)})
    for before, after in zip(model.parameters(), made.parameters(), strict=True):
        size = (after - before).detach().square().mean().sqrt() / before.detach().square().mean().sqrt()
        assert float(size) == pytest.approx(0.5, rel=0.2)


def test_another_draw_is_that_of_the_layers_or_of_the_function():
    model = mlp()
    made = cw.Seeds(model).candidate({"seed": 5})
    torch.manual_seed(5)
    fresh = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    assert same(made, fresh)

    def make(seed):
        torch.manual_seed(seed + 1)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    assert same(cw.Seeds(model, make).candidate({"seed": 4}), fresh)


class Mine(Space):
    def __init__(self, model):
        self.model = model
        self.variables = (Coordinates("shift", 1),)

    def place(self, model, point):
        model.bias.add_(point["shift"][0])

    def describe(self):
        return "a shift of the bias"


def test_a_space_of_ones_own_works_everywhere():
    model = nn.Linear(1, 1)
    target = float(model.bias.detach()) + 0.5
    found = cw.search_start(Mine(model), lambda m: (float(m.bias.detach()) - target) ** 2, budget=40)
    assert found.best_loss < 1e-3


def refused(call, message, error=cw.ArgumentError):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_bad_arguments_of_spaces_are_refused():
    model = mlp()
    refused(
        lambda: cw.LayerGains(3),
        "model must be a torch.nn.Module, got int 3; pass the model whose start is to be searched",
        cw.ArgumentTypeError,
    )
    refused(
        lambda: cw.LayerGains(model, lower=0.0),
        "lower must be a finite number above 0, got 0.0; pass the smallest factor, for example 0.1",
    )
    refused(lambda: cw.LayerGains(model, upper=0.1), "upper must be above lower=0.1, got 0.1; pass for example 10")
    refused(
        lambda: cw.LayerGains(model, lower=2.0),
        "lower and upper must have 1, the untouched start, between them, got 2.0 and 10.0; "
        "scale the model itself first if all factors are to be on one side",
    )
    refused(
        lambda: cw.LayerGains(nn.LayerNorm(3)),
        "model must have trained parameters with at least two dimensions, got none; unfreeze some layers first",
    )
    refused(
        lambda: cw.FullSpace(nn.Linear(100, 100)),
        "model must have 1 to 10,000 trained numbers for a FullSpace, got 10,100; "
        "search some directions with Subspace(model), or factors with LayerGains(model)",
    )
    refused(
        lambda: cw.Subspace(model, 3, directions="gradient"),
        "loss_fn must be given for directions spanned by gradients, got None; pass the loss",
    )
    refused(
        lambda: cw.Subspace(
            model, 3, directions="gradient", loss_fn=nn.functional.cross_entropy, batches=batches(1) * 9
        ),
        "batches must span 3 directions, got 1 independent gradients; pass more batches or a smaller size",
    )
    refused(
        lambda: cw.InitScheme(nn.LayerNorm(3)),
        "model must have trained layers of a kind that has schemes (linear, convolution, recurrent, embedding), "
        "got none; search factors with LayerGains(model)",
    )
    refused(
        lambda: cw.Product([cw.LayerGains(model)]),
        "spaces must be two or more, got 1; a single space needs no product",
    )
    refused(
        lambda: cw.Product([cw.LayerGains(model), cw.LayerGains(mlp())]),
        "spaces must be over the same model object, got different ones; make them of one model",
    )
    refused(
        lambda: cw.LayerGains(model).candidate({"gains": (0.0, 2.0)}),
        "point['gains'] must be 2 numbers in [-1, 1], got (0.0, 2.0); "
        "0 is the untouched start, -1 and 1 are the ends of the range",
    )
    refused(
        lambda: cw.LayerGains(nn.LazyLinear(3)),
        "model must have initialised parameters, got a lazy layer that has not seen a batch; "
        "run one batch through the model first",
    )
