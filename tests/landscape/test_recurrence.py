"""The way back through time: linear recurrences exactly, every recurrent layer of torch, cells, loops, and refusals."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

import cyclewise as cw
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.recurrence import memory
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.landscape.unrolled import unrolled


def last_output(outputs, targets):
    return F.mse_loss(outputs[0][-1], targets)


class LastState(nn.Module):
    """A recurrent layer and a head on its last output."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.LazyLinear(1)

    def forward(self, inputs):
        outputs = self.layer(inputs)[0]
        return self.head(outputs[:, -1] if self.layer.batch_first else outputs[-1])


class LinearRecurrence(nn.Module):
    """h' = W h + U x, as a user would write it: a module called in a loop."""

    def __init__(self, matrix):
        super().__init__()
        self.step = LinearStep(matrix)

    def forward(self, inputs):
        state = torch.zeros(inputs.shape[1], len(self.step.matrix), dtype=inputs.dtype)
        for row in inputs:
            state = self.step(row, state)
        return state


class LinearStep(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, row, state):
        return state @ self.matrix.T + row


def planted(eigenvalues, seed=0):
    """Return a matrix W = V diag(lambda) V^-1 with V and lambda, not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(eigenvalues), len(eigenvalues), generator=generator, dtype=torch.float64)
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    return vectors @ torch.diag(values) @ torch.linalg.inv(vectors), vectors, values


def linear_memory(matrix, num_steps=30, num_samples=16, seed=0):
    model = LinearRecurrence(matrix)
    batch = torch.randn(num_steps, num_samples, len(matrix), dtype=matrix.dtype), torch.zeros(num_samples, len(matrix))
    objective = Objective(model, lambda outputs, targets: (outputs**2).mean(), [batch])
    return memory(objective, seed=seed).recurrences[0], objective


@pytest.mark.parametrize("eigenvalues", [[0.9, 0.5, -0.3, 0.1], [1.1, -0.8, 0.6], [1.0, 0.2]], ids=str)
def test_influence_of_a_linear_recurrence_is_v_diag_lambda_to_the_k_v_inverse(eigenvalues):
    matrix, vectors, values = planted(eigenvalues)
    recurrence, _ = linear_memory(matrix, seed=7)
    # The random directions, drawn again.
    probe = torch.randn(16, len(values), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    probe = probe / probe.norm(dim=1, keepdim=True)
    for lag, influence in enumerate(recurrence.influence):
        power = vectors @ torch.diag(values**lag) @ torch.linalg.inv(vectors)
        expected = (probe @ power).norm(dim=1).log().mean().exp()
        assert influence == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("radius", [0.8, 0.9, 1.0, 1.1])
def test_growth_factor_of_a_linear_recurrence_is_its_spectral_radius(radius):
    matrix, _, _ = planted([radius, 0.5 * radius, -0.4 * radius, 0.1])
    recurrence, _ = linear_memory(matrix, num_steps=40)
    assert recurrence.growth_factor == pytest.approx(radius, rel=2e-3)
    assert (recurrence.num_steps, recurrence.num_samples, recurrence.reads_end) == (40, 16, True)
    rotation = radius * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)  # complex eigenvalues
    turning, _ = linear_memory(rotation)
    assert turning.growth_factor == pytest.approx(radius, rel=1e-6)
    assert turning.horizon == (pytest.approx(1 / math.log(1 / radius), rel=1e-6) if radius < 1 else None)


def test_gradient_norms_are_those_of_autograd():
    matrix, _, _ = planted([0.9, 0.5, -0.3])
    recurrence, objective = linear_memory(matrix, num_steps=10)
    inputs = objective.batches[0][0]
    states = [torch.zeros(16, 3, dtype=torch.float64)]
    for row in inputs:
        states.append(states[-1] @ matrix.T + row)
    gradient = 2 * states[-1] / states[-1].numel()
    for norm in recurrence.gradient_norms:
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-9)
        gradient = gradient @ matrix


LAYERS = [
    lambda **options: nn.RNN(3, 8, **options),
    lambda **options: nn.RNN(3, 8, nonlinearity="relu", **options),
    lambda **options: nn.LSTM(3, 8, **options),
    lambda **options: nn.LSTM(3, 8, proj_size=5, **options),
    lambda **options: nn.GRU(3, 8, **options),
]
OPTIONS = [
    {},
    {"batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
]


def flat(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", LAYERS, ids=["rnn", "relu", "lstm", "projected", "gru"])
def test_unrolled_layers_are_torchs_layers(make, options):
    torch.manual_seed(0)
    layer = make(**options)
    inputs = torch.randn(6, 4, 3)
    expected, last = layer(inputs)
    initial = tuple(0.1 * torch.randn_like(part) for part in flat(last))
    given = initial if isinstance(last, tuple) else initial[0]
    expected_given, last_given = layer(inputs, given)
    single, single_last = layer(inputs[:, 0])
    with unrolled([layer], lambda module, depth, direction, state: state):
        for call, (outputs, end) in (
            ((inputs,), (expected, last)),
            ((inputs, given), (expected_given, last_given)),
            ((inputs[:, 0],), (single, single_last)),
        ):
            ours, our_end = layer(*call)
            torch.testing.assert_close(ours, outputs, rtol=1e-5, atol=1e-6)
            for part, other in zip(flat(our_end), flat(end), strict=True):
                torch.testing.assert_close(part, other, rtol=1e-5, atol=1e-6)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_influence_of_a_gated_layer_is_that_of_its_whole_state_step_by_step(kind):
    torch.manual_seed(1)
    layer = kind(3, 5).double()
    inputs = torch.randn(12, 6, 3, dtype=torch.float64)
    objective = Objective(layer, lambda outputs, targets: outputs[0][-1].sum(), [(inputs, torch.zeros(6))])
    recurrence = memory(objective, seed=3).recurrences[0]

    generator = torch.Generator().manual_seed(3)
    is_lstm = kind is nn.LSTM
    states, state = [], tuple(torch.zeros(1, 6, 5, dtype=torch.float64) for _ in range(2 if is_lstm else 1))
    for row in inputs:
        _, last = layer(row[None], state if is_lstm else state[0])
        state = last if is_lstm else (last,)
        states.append(torch.cat([part[0] for part in state], dim=1).detach())
    probe = torch.cat([torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in state], dim=1)
    probe = probe / probe.norm(dim=1, keepdim=True)
    lengths = [0.0]
    for t in reversed(range(11)):
        before = states[t].clone().requires_grad_()
        parts = before.split(5, dim=1)
        _, last = layer(inputs[t + 1][None], (parts[0][None], parts[1][None]) if is_lstm else parts[0][None])
        after = torch.cat([part[0] for part in last], dim=1) if is_lstm else last[0]
        (probe,) = torch.autograd.grad(after, before, probe)
        lengths.append(float(probe.norm(dim=1).log().mean()))
    assert recurrence.influence == pytest.approx([math.exp(length) for length in lengths], rel=1e-8)


class CellLoop(nn.Module):
    def __init__(self, cell, is_lstm):
        super().__init__()
        self.cell, self.is_lstm = cell, is_lstm

    def forward(self, inputs):
        zeros = torch.zeros(inputs.shape[1], self.cell.hidden_size, dtype=inputs.dtype)
        state = (zeros, zeros) if self.is_lstm else zeros
        for row in inputs:
            state = self.cell(row, state)
        return state[0] if self.is_lstm else state


@pytest.mark.parametrize(("layer", "cell"), [(nn.RNN, nn.RNNCell), (nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)])
def test_a_cell_in_a_loop_is_the_layer(layer, cell):
    torch.manual_seed(2)
    layer, cell = layer(3, 5), cell(3, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    batches = [(torch.randn(12, 6, 3), torch.randn(6, 5)) for _ in range(2)]
    by_layer = memory(Objective(layer, last_output, batches))
    by_cell = memory(Objective(CellLoop(cell, isinstance(cell, nn.LSTMCell)), F.mse_loss, batches))
    first, second = by_layer.recurrences[0], by_cell.recurrences[0]
    assert second.name == "cell"
    assert second.influence == pytest.approx(first.influence, rel=1e-4)
    assert second.gradient_norms == pytest.approx(first.gradient_norms, rel=1e-4)
    assert second.growth_factor == pytest.approx(first.growth_factor, rel=1e-4)
    assert (first.num_samples, first.reads_end, second.reads_end) == (12, True, True)


def test_layers_and_directions_are_told_apart():
    torch.manual_seed(0)
    model = LastState(nn.GRU(3, 8, num_layers=2, bidirectional=True, batch_first=True))
    batch = torch.randn(4, 10, 3), torch.randn(4, 1)
    model(batch[0])
    found = memory(Objective(model, F.mse_loss, [batch]))
    assert [recurrence.name for recurrence in found.recurrences] == [
        "layer, layer 0",
        "layer, layer 0, backwards",
        "layer, layer 1",
        "layer, layer 1, backwards",
    ]
    assert all(0.2 < recurrence.growth_factor < 1.0 for recurrence in found.recurrences)
    assert found.reason is None


def rnn_with_radius(radius, width=32):
    """An RNN with small states, whose Jacobian is nearly `radius` times a rotation."""
    torch.manual_seed(0)
    layer = nn.RNN(2, width, bias=False)
    nn.init.orthogonal_(layer.weight_hh_l0, gain=radius)
    nn.init.normal_(layer.weight_ih_l0, std=1e-4)
    return layer


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.1])
def test_factor_and_horizon_of_a_network(radius):
    batch = torch.randn(60, 8, 2), torch.randn(8, 1)
    model = LastState(rnn_with_radius(radius))
    model(batch[0])
    recurrence = memory(Objective(model, F.mse_loss, [batch])).recurrences[0]
    assert recurrence.growth_factor == pytest.approx(radius, rel=0.01)
    assert recurrence.gradient_norms[50] / recurrence.gradient_norms[0] == pytest.approx(radius**50, rel=0.3)
    if radius < 1:
        assert recurrence.horizon == pytest.approx(1 / math.log(1 / radius), rel=0.05)
        assert recurrence.reach(0.1) == pytest.approx(math.log(10) / math.log(1 / radius), rel=0.05)
    elif radius > 1:
        assert recurrence.horizon is None


def test_a_loss_at_every_step_is_told_apart():
    batch = torch.randn(20, 8, 2), torch.randn(20, 8, 16)
    found = memory(Objective(nn.GRU(2, 16), lambda outputs, targets: F.mse_loss(outputs[0], targets), [batch]))
    assert not found.recurrences[0].reads_end
    norms = found.recurrences[0].gradient_norms
    assert 0.3 < norms[10] / norms[5] < 3.0


def test_a_decoder_called_step_by_step_is_one_sequence():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(3, 6)

        def forward(self, inputs):
            state = None
            for row in inputs:
                outputs, state = self.layer(row[None], state)
            return outputs[0]

    model = Decoder()
    batch = torch.randn(15, 4, 3), torch.randn(4, 6)
    stepwise = memory(Objective(model, F.mse_loss, [batch])).recurrences[0]
    whole = memory(Objective(model.layer, last_output, [batch])).recurrences[0]
    assert stepwise.num_steps == 15
    assert stepwise.influence == pytest.approx(whole.influence, rel=1e-4)


def test_a_loop_of_linear_layers():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.drive, self.carry = nn.Linear(2, 8), nn.Linear(8, 8, bias=False)

        def forward(self, inputs):
            state = torch.zeros(inputs.shape[1], 8)
            for row in inputs:
                state = torch.tanh(self.drive(row) + self.carry(state))
            return state

    torch.manual_seed(0)
    model = Loop()
    nn.init.orthogonal_(model.carry.weight, gain=0.7)
    with torch.no_grad():
        model.drive.weight.mul_(1e-3)
        model.drive.bias.zero_()
    found = memory(Objective(model, F.mse_loss, [(torch.randn(20, 4, 2), torch.zeros(4, 8))]))
    assert [recurrence.name for recurrence in found.recurrences] == ["carry"]
    assert found.recurrences[0].growth_factor == pytest.approx(0.7, rel=0.01)


def test_what_is_not_a_recurrence():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(3, 2)

        def forward(self, inputs):
            return sum(self.encoder(row) for row in inputs)

    batch = torch.randn(8, 4, 3), torch.randn(4, 2)
    assert memory(Objective(Siamese(), F.mse_loss, [batch])).reason is Unavailable.NO_RECURRENCE
    plain = Objective(nn.Linear(3, 2), F.mse_loss, [(torch.randn(4, 3), torch.randn(4, 2))])
    assert memory(plain).reason is Unavailable.NO_RECURRENCE
    assert plain.cost == pytest.approx(1 / 3)


def test_refusals():
    packed = pack_padded_sequence(torch.randn(9, 4, 3), torch.tensor([9, 8, 5, 2]))

    def last(outputs, targets):
        return F.mse_loss(outputs[1][0], targets)

    found = memory(Objective(nn.GRU(3, 2), last, [({"input": packed}, torch.zeros(4, 2))]))
    assert (found.recurrences, found.reason) == ((), Unavailable.PACKED)
    short = memory(Objective(nn.GRU(3, 2), last, [(torch.randn(3, 4, 3), torch.zeros(4, 2))]))
    assert short.reason is Unavailable.TOO_SHORT


def test_states_that_are_cut_off():
    layer = nn.RNN(3, 5, nonlinearity="relu")
    nn.init.constant_(layer.bias_hh_l0, -100.0)
    recurrence = memory(Objective(layer, last_output, [(torch.randn(10, 4, 3), torch.zeros(4, 5))])).recurrences[0]
    assert (recurrence.growth_factor, recurrence.growth_factor_std_error) == (0.0, None)
    assert recurrence.horizon < 1.0


def test_long_sequences_neither_underflow_nor_overflow():
    for radius in (0.3, 5.0):
        torch.manual_seed(0)
        layer = nn.RNN(2, 8, nonlinearity="relu", bias=False)
        with torch.no_grad():
            layer.weight_hh_l0.copy_(radius * torch.eye(8))
            layer.weight_ih_l0.fill_(1e-30)
        objective = Objective(layer, last_output, [(torch.ones(120, 4, 2), torch.zeros(4, 8))])
        recurrence = memory(objective).recurrences[0]
        assert recurrence.growth_factor == pytest.approx(radius, rel=1e-3)


def test_cost_bits_and_no_trace():
    torch.manual_seed(0)
    model = LastState(nn.LSTM(3, 8, num_layers=2, dropout=0.3))
    batches = [(torch.randn(10, 4, 3), torch.randn(4, 1)) for _ in range(4)]
    model(batches[0][0])
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    objective = Objective(model, F.mse_loss, batches)
    first = memory(objective)
    # A forward pass over one batch to look; then for two of the four forward, and two backward passes for each layer.
    assert objective.cost == pytest.approx((1 / 3 + 2 * (1 / 3 + 4 * 2 / 3)) / 4)
    assert memory(objective) == first
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert "forward" not in vars(model.layer)


def test_a_recurrent_layer_with_a_forward_pass_of_its_own_is_not_measured_as_another():
    class Dropped(nn.LSTM):
        def forward(self, x, hx=None):
            return super().forward(nn.functional.dropout(x, 0.1, self.training), hx)[0]

    torch.manual_seed(0)
    model = nn.Sequential(Dropped(8, 16, batch_first=True), nn.Flatten(), nn.Linear(160, 4))
    d = cw.diagnose(model, nn.functional.cross_entropy, [(torch.randn(32, 10, 8), torch.arange(32) % 4)])
    assert d.gradient_norm is not None
    assert not any(finding.kind.endswith("_memory") for finding in d.findings)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_default_weights_over_the_rows_of_a_picture_are_no_severe_matter(kind):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = kind(28, 32, batch_first=True), nn.Linear(32, 10)

        def forward(self, inputs):
            return self.head(self.layer(inputs)[0][:, -1])

    torch.manual_seed(0)
    batch = torch.randn(64, 28, 28), torch.randint(10, (64,))
    findings = cw.diagnose(Rows(), F.cross_entropy, [batch], budget=30).findings
    assert [f.severity for f in findings if f.kind == "fading_memory"] == ["warning"]
