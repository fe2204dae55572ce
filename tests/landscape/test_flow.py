"""Gradients through the layers: exact factors, planted dead and saturated units, and healthy networks left alone."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cyclewise.landscape.flow import gradient_flow
from cyclewise.landscape.objective import Objective


def flow_of(model, batches, loss_fn=F.mse_loss):
    return gradient_flow(Objective(model, loss_fn, batches))


def classes(num_samples=64, width=16, num_batches=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(num_samples, width, generator=generator), torch.randint(4, (num_samples,), generator=generator))
        for _ in range(num_batches)
    ]


def deep(depth, activation, width=64, gain=None, norm=None):
    torch.manual_seed(0)
    layers = [nn.Linear(16, width), activation()]
    for _ in range(depth):
        layer = nn.Linear(width, width)
        if gain is not None:
            nn.init.normal_(layer.weight, std=gain / math.sqrt(width))
        layers += [layer, norm(width), activation()] if norm else [layer, activation()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.0])
def test_a_chain_of_rotations_has_exactly_its_factor(factor):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8, bias=False) for _ in range(12)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain=factor)
    flow = flow_of(nn.Sequential(*layers), [(torch.randn(5, 8), torch.randn(5, 8))])
    assert len(flow.layers) == 12  # the inputs of the 11 later layers, and the output
    assert flow.per_layer_factor == pytest.approx(factor, rel=1e-4)
    assert flow.per_layer_factor_std_error == pytest.approx(0.0, abs=1e-4)
    assert flow.total_factor == pytest.approx(factor**11, rel=1e-4)


def test_norms_are_those_of_autograd():
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))
    batches = classes(num_batches=3)
    squares = []
    for inputs, targets in batches:
        hidden = model[1](model[0](inputs))
        (gradient,) = torch.autograd.grad(F.cross_entropy(model[2](hidden), targets), hidden)
        squares.append(float(gradient.square().sum()))
    flow = flow_of(model, batches, F.cross_entropy)
    assert [layer.name for layer in flow.layers] == ["2", "output"]
    assert flow.layers[0].gradient_norm == pytest.approx(math.sqrt(sum(squares) / 3), rel=1e-5)
    assert [name for name, _ in flow.update_ratios] == ["0", "2"]
    assert flow.update_ratios[1][1] == flow.layers[0].weight_gradient_ratio
    gradient = Objective(model, F.cross_entropy, batches).gradient()[-36:]
    weights = torch.cat([p.detach().flatten() for p in model[2].parameters()])
    assert flow.layers[0].weight_gradient_ratio == pytest.approx(float(gradient.norm() / weights.norm()), rel=1e-5)


def test_deep_sigmoids_vanish_and_large_weights_explode():
    vanishing = flow_of(deep(12, nn.Sigmoid), classes(), F.cross_entropy)
    assert vanishing.per_layer_factor < 0.4
    assert vanishing.total_factor < 1e-6
    assert vanishing.update_factor < 0.4
    exploding = flow_of(deep(12, nn.ReLU, gain=6.0), classes(), F.cross_entropy)
    assert exploding.per_layer_factor > 3.0
    assert exploding.total_factor > 1e6


def test_pooling_shrinks_the_norms_but_not_the_updates():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)]
    for block in blocks:
        nn.init.kaiming_normal_(block[0].weight, nonlinearity="relu")
    # Each place four times over, and their mean taken again: the same function.
    pooled = nn.Sequential(*(nn.Sequential(nn.Upsample(scale_factor=2), block, nn.AvgPool2d(2)) for block in blocks))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    flow = flow_of(nn.Sequential(pooled, head), [(torch.randn(16, 8, 8, 8), torch.randint(4, (16,)))], F.cross_entropy)
    assert flow.total_factor < 0.05
    assert 0.3 < flow.update_factor < 1.5


def test_a_gradient_that_underflows_is_still_a_vanishing_one():
    flow = flow_of(deep(80, nn.Sigmoid), classes(), F.cross_entropy)
    assert flow.layers[0].gradient_norm < 1e-40
    assert flow.per_layer_factor < 0.4


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, inputs):
        return inputs + self.body(inputs)


def residual_net():
    torch.manual_seed(0)
    blocks = [
        Residual(nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))) for _ in range(15)
    ]
    return nn.Sequential(nn.Linear(16, 32), *blocks, nn.Linear(32, 4))


def test_healthy_deep_networks_look_healthy():
    networks = {
        "He-initialised ReLU": deep(20, nn.ReLU, gain=math.sqrt(2.0)),
        "layer norm": deep(20, nn.ReLU, norm=nn.LayerNorm),
        "batch norm": deep(20, nn.ReLU, norm=nn.BatchNorm1d),
        "residual": residual_net(),
    }
    for name, model in networks.items():
        flow = flow_of(model, classes(), F.cross_entropy)
        assert 0.75 < flow.per_layer_factor < 1.33, name
        # Unless batch norm spreads them, samples draw together with depth, so that some units are always off.
        most = 0.1 if name in ("batch norm", "residual") else 0.5
        assert all((layer.dead_share or 0.0) < most for layer in flow.layers), name
        assert all((layer.constant_share or 0.0) < most for layer in flow.layers), name


def test_a_transformer_looks_healthy():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(20, 32), encoder, nn.Flatten(), nn.Linear(32 * 5, 4))
    flow = flow_of(model, [(torch.randint(20, (32, 5)), torch.randint(4, (32,)))], F.cross_entropy)
    assert len(flow.layers) > 12
    assert 0.75 < flow.per_layer_factor < 1.33
    assert max(layer.dead_share or 0.0 for layer in flow.layers) == 0.0


class Functional(nn.Module):
    """One hidden layer of 10 ReLU units, the first `num_dead` of which never fire; activation as a function."""

    def __init__(self, num_dead, dropout=0.0):
        super().__init__()
        self.first = nn.Linear(16, 10)
        self.second = nn.Linear(10, 4)
        self.dropout = dropout
        with torch.no_grad():
            self.first.bias[:num_dead] = -100.0

    def forward(self, inputs):
        return self.second(F.dropout(F.relu(self.first(inputs)), self.dropout))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("num_dead", [0, 3, 10])
def test_dead_units_are_counted(num_dead, dropout):
    flow = flow_of(Functional(num_dead, dropout), classes(), F.cross_entropy)
    assert flow.layers[0].name == "second"
    assert flow.layers[0].activation_kind == "relu"
    assert flow.layers[0].num_units == 10
    assert flow.layers[0].dead_share == pytest.approx(num_dead / 10)
    assert flow.num_samples == 64


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()], ids=str)
def test_dead_channels_of_a_convolution(activation):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), activation, nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), activation, nn.Flatten(), nn.Linear(8, 4)
    )
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-100.0] * 2 + [1.0] * 6))
        model[3].bias.copy_(torch.tensor([-100.0] * 4 + [1.0] * 4))
    # Like digits: the border is zero in every image, which makes many places constant, and no channel.
    images = F.pad(torch.randn(32, 1, 6, 6), (2, 2, 2, 2))[:, :, :8, :8]
    flow = flow_of(model, [(images, torch.randint(4, (32,)))], F.cross_entropy)
    assert [layer.name for layer in flow.layers] == ["3", "6", "output"]
    assert [layer.dead_share for layer in flow.layers[:2]] == [0.25, 0.5]
    assert [layer.num_units for layer in flow.layers[:2]] == [8, 8]


def test_a_unit_that_one_batch_wakes_is_not_dead():
    model = Functional(0)
    with torch.no_grad():
        model.first.weight[0] = 0.0
        model.first.weight[0, 0] = 1.0
        model.first.bias[0] = 0.0
    (asleep, targets), (awake, _) = classes(num_batches=2)
    asleep[:, 0], awake[:, 0] = -1.0, 1.0
    assert flow_of(model, [(asleep, targets)], F.cross_entropy).layers[0].dead_share == pytest.approx(0.1)
    both = flow_of(model, [(asleep, targets), (awake, targets)], F.cross_entropy)
    assert both.layers[0].dead_share == 0.0


def test_constant_units_that_are_not_zero():
    model = nn.Sequential(nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 4))
    with torch.no_grad():
        model[0].weight[:4] = 0.0
    flow = flow_of(model, classes(), F.cross_entropy)
    assert flow.layers[0].constant_share == pytest.approx(0.4)
    assert flow.layers[0].dead_share is None


@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid])
def test_saturation(activation):
    class Saturated(nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.first, self.second, self.gain = nn.Linear(16, 10), nn.Linear(10, 4), gain

        def forward(self, inputs):
            return self.second(activation(self.gain * self.first(inputs)))

    torch.manual_seed(0)
    assert flow_of(Saturated(1.0), classes(), F.cross_entropy).layers[0].saturated_share < 0.05
    assert flow_of(Saturated(100.0), classes(), F.cross_entropy).layers[0].saturated_share > 0.9


def test_a_recurrent_cell_is_one_layer():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 8), nn.Linear(8, 1)

        def forward(self, inputs):
            state = torch.zeros(inputs.shape[1], 8)
            for step in inputs:
                state = self.cell(step, state)
            return self.head(state)

    flow = flow_of(Loop(), [(torch.randn(30, 16, 3), torch.randn(16, 1))])
    assert [layer.name for layer in flow.layers] == ["cell", "head", "output"]


def test_weights_that_are_computed_from_others():
    first = nn.utils.parametrizations.weight_norm(nn.Linear(16, 8))
    flow = flow_of(nn.Sequential(first, nn.ReLU(), nn.Linear(8, 4)), classes(), F.cross_entropy)
    assert [layer.name for layer in flow.layers] == ["2", "output"]
    assert [name for name, _ in flow.update_ratios] == ["0", "2"]


def test_a_single_layer_has_nothing_to_compare():
    flow = flow_of(nn.Linear(16, 4), classes(), F.cross_entropy)
    assert [layer.name for layer in flow.layers] == ["output"]
    assert (flow.per_layer_factor, flow.total_factor) == (None, None)


def test_no_gradient_at_all():
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(model[4].weight)
    flow = flow_of(model, classes(), F.cross_entropy)
    assert [layer.gradient_norm > 0 for layer in flow.layers] == [False, False, True]
    assert flow.layers[-2].weight_gradient_ratio is not None
    dead = flow_of(
        deep(3, nn.ReLU), [(torch.zeros(4, 16), torch.zeros(4, 4))], lambda outputs, targets: 0 * outputs.sum()
    )
    assert (dead.per_layer_factor, dead.total_factor) == (None, None)


def test_frozen_layers_pass_no_gradient_and_are_left_out():
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    flow = flow_of(model, classes(), F.cross_entropy)
    assert [layer.name for layer in flow.layers] == ["4", "output"]


def test_costs_one_evaluation_and_leaves_nothing_behind():
    model = deep(3, nn.ReLU, norm=nn.BatchNorm1d)
    before = copy.deepcopy(model.state_dict())
    objective = Objective(model, F.cross_entropy, classes(num_batches=4))
    first = gradient_flow(objective)
    assert objective.cost == pytest.approx(1.0)
    assert gradient_flow(objective) == first
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert all(not module._forward_pre_hooks_with_kwargs for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hooks_go_when_the_model_raises():
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    objective = Objective(model, F.cross_entropy, classes())
    objective.batches = [(torch.zeros(2, 3), torch.zeros(2))]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradient_flow(objective)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_an_auxiliary_head_that_hardly_counts_is_not_the_output(weight):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = deep(6, nn.ReLU, gain=1.4)
            self.main, self.auxiliary = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, inputs):
            hidden = self.body(inputs)
            return self.main(hidden), self.auxiliary(hidden)

    def loss_fn(outputs, targets):
        return F.cross_entropy(outputs[0], targets) + weight * F.cross_entropy(outputs[1], targets)

    objective = Objective(TwoHeads(), loss_fn, classes())
    flow = gradient_flow(objective)
    outputs = [output.detach().requires_grad_() for output in objective.model(classes()[0][0])]
    gradients = torch.autograd.grad(loss_fn(outputs, classes()[0][1]), outputs)
    assert flow.layers[-1].gradient_norm == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-4)
    assert 0.1 < flow.total_factor < 10.0
