"""The noise of the gradient: unbiased over many draws of a regression of known covariance; what is refused, and why."""

import math
import statistics

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from cyclewise.errors import ArgumentError
from cyclewise.landscape.noise import GradientNoise, gradient_noise, moments_of
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.parts import batch_size, parts_of
from cyclewise.landscape.unavailable import Unavailable

DIMENSIONS = 10
NOISE = 1.5
DISTANCE = torch.linspace(-0.5, 0.5, DIMENSIONS)  # of the model's weights from the true ones


def regression_batch(num_samples, generator):
    inputs = torch.randn(num_samples, DIMENSIONS, generator=generator)
    targets = -(inputs @ DISTANCE[:, None]) + NOISE * torch.randn(num_samples, 1, generator=generator)
    return inputs, targets


def regression_model():
    model = nn.Linear(DIMENSIONS, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def true_moments():
    """|G|^2 and tr S of the gradient 2 e x of one sample, with e = d'x - noise, x standard normal."""
    squared = float(DISTANCE @ DISTANCE)
    signal = 4.0 * squared
    return signal, 4.0 * (squared * (DIMENSIONS + 2) + NOISE**2 * DIMENSIONS) - signal


def measured(batches, model=None, loss_fn=F.mse_loss):
    return gradient_noise(Objective(model or regression_model(), loss_fn, batches))


def assert_mean_is(values, truth):
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert abs(statistics.fmean(values) - truth) < 3.5 * error
    assert error < 0.05 * truth  # sharp enough to see a biased estimator


@pytest.mark.parametrize("sizes", [[64], [30, 30, 7], [8] * 9], ids=str)
def test_signal_and_variance_are_unbiased_over_many_draws(sizes):
    generator = torch.Generator().manual_seed(sum(sizes))
    draws = [measured([regression_batch(size, generator) for size in sizes]) for _ in range(120)]
    signal, variance = true_moments()
    assert_mean_is([draw.variance for draw in draws], variance)
    errors = [(draw.signal - signal) for draw in draws]
    assert abs(statistics.fmean(errors)) < 3.5 * statistics.stdev(errors) / math.sqrt(len(errors))
    # The naive |g|^2 would be off by tr S / N, which these draws tell apart.
    assert variance / sum(sizes) > 3.5 * statistics.stdev(errors) / math.sqrt(len(errors))


def test_standard_errors_are_the_spread_of_many_draws():
    generator = torch.Generator().manual_seed(0)
    draws = [measured([regression_batch(256, generator)]) for _ in range(150)]
    for value, error in (
        ("signal", "signal_std_error"),
        ("variance", "variance_std_error"),
        ("noise_scale", "noise_scale_std_error"),
    ):
        spread = statistics.stdev(getattr(draw, value) for draw in draws)
        stated = statistics.fmean(getattr(draw, error) for draw in draws)
        assert 0.75 * spread < stated < 1.4 * spread, value
    signal, variance = true_moments()
    covered = [
        draw.noise_scale_interval[0] <= variance / signal <= (draw.noise_scale_interval[1] or math.inf)
        for draw in draws
    ]
    assert statistics.fmean(covered) > 0.88


def test_noise_scale_converges():
    signal, variance = true_moments()
    noise = measured([regression_batch(20_000, torch.Generator().manual_seed(1))])
    assert noise.noise_scale == pytest.approx(variance / signal, rel=0.1)
    assert noise.reason is None
    assert not noise.is_zero_within_noise


def test_a_network_against_the_covariance_of_all_its_samples():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, DIMENSIONS, generator=generator)
    targets = (inputs[:, 0] * inputs[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(DIMENSIONS, 16), nn.Tanh(), nn.Linear(16, 2))
    per_sample = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())]).double()
            for loss in (F.cross_entropy(model(inputs[i : i + 1]), targets[i : i + 1]) for i in range(len(inputs)))
        ]
    )
    mean = per_sample.mean(0)
    variance, signal = float((per_sample - mean).square().sum(1).mean()), float(mean @ mean)
    draws = []
    for _ in range(100):
        rows = torch.randint(500, (128,), generator=generator)
        draws.append(measured([(inputs[rows], targets[rows])], model, F.cross_entropy))
    assert_mean_is([draw.variance for draw in draws], variance)
    intervals = [draw.noise_scale_interval for draw in draws]
    covered = [low <= variance / signal <= (math.inf if high is None else high) for low, high in intervals]
    assert statistics.fmean(covered) > 0.85


def test_equal_parts_give_the_formulas_of_the_paper():
    gradients = torch.randn(4, 7, dtype=torch.float64)
    small, large = float(gradients.square().sum(1).mean()), float(gradients.mean(0).square().sum())
    moments = moments_of(gradients, [5] * 4)
    assert moments.signal == pytest.approx((20 * large - 5 * small) / (20 - 5))
    assert moments.variance == pytest.approx((small - large) / (1 / 5 - 1 / 20))


def test_noise_far_below_the_gradient_survives_rounding():
    gradients = 1000.0 + 1e-2 * torch.randn(8, 1000)
    expected = float((gradients.double() - gradients.double().mean(0)).square().sum()) / 7
    assert moments_of(gradients, [1] * 8).variance == pytest.approx(expected, rel=0.01)


def test_a_gradient_of_noise_alone_is_called_zero():
    generator = torch.Generator().manual_seed(2)
    model = regression_model()
    verdicts, scales = [], []
    for _ in range(100):
        inputs = torch.randn(64, DIMENSIONS, generator=generator)
        noise = measured([(inputs, torch.randn(64, 1, generator=generator))], model)
        verdicts.append(noise.is_zero_within_noise)
        scales.append((noise.noise_scale, noise.reason, noise.noise_scale_interval))
    assert statistics.fmean(verdicts) > 0.9
    assert any(scale is None and reason is Unavailable.NO_SIGNAL for scale, reason, _ in scales)
    assert all((scale is None) == (reason is Unavailable.NO_SIGNAL) for scale, reason, _ in scales)
    assert statistics.fmean(interval[1] is None for _, _, interval in scales) > 0.9


def test_noise_norm_is_the_spread_of_the_gradient_of_unequal_batches():
    generator = torch.Generator().manual_seed(3)
    sizes = [32, 32, 4]
    draws, gradients = [], []
    for _ in range(100):
        objective = Objective(regression_model(), F.mse_loss, [regression_batch(size, generator) for size in sizes])
        draws.append(gradient_noise(objective))
        gradients.append(objective.gradient())
    spread = torch.stack(gradients).var(0).sum().sqrt()
    assert statistics.fmean(draw.noise_norm for draw in draws) == pytest.approx(float(spread), rel=0.1)
    assert draws[0].num_samples == 68
    assert draws[0].effective_samples == pytest.approx(9 / (1 / 32 + 1 / 32 + 1 / 4))


def test_weighting_bias_is_that_of_a_short_last_batch():
    generator = torch.Generator().manual_seed(4)
    batches = [regression_batch(size, generator) for size in (32, 32, 4)]
    model = regression_model()
    pooled = tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))
    equal_weight = Objective(model, F.mse_loss, batches).gradient()
    full = Objective(model, F.mse_loss, [pooled]).gradient()
    assert measured(batches, model).weighting_bias == pytest.approx(
        float((equal_weight - full).norm() / full.norm()), rel=1e-4
    )
    assert measured(batches[:2], model).weighting_bias == 0.0


def test_layers_add_up_and_know_the_noisy_one():
    model = nn.Sequential(nn.Linear(DIMENSIONS, 8), nn.Tanh(), nn.Linear(8, 1))
    noise = measured([regression_batch(64, torch.Generator().manual_seed(5))], model)
    assert [layer.name for layer in noise.layers] == [name for name, _ in model.named_parameters()]
    assert sum(layer.signal for layer in noise.layers) == pytest.approx(noise.signal, rel=1e-4)
    assert sum(layer.variance for layer in noise.layers) == pytest.approx(noise.variance, rel=1e-4)
    assert all(layer.signal_to_noise >= 0 for layer in noise.layers)


def test_a_loss_that_sums_over_samples_has_the_same_noise_scale():
    batch = regression_batch(64, torch.Generator().manual_seed(6))
    model = regression_model()
    mean = measured([batch], model)
    total = measured([batch], model, lambda outputs, targets: F.mse_loss(outputs, targets, reduction="sum"))
    assert total.noise_scale == pytest.approx(mean.noise_scale, rel=1e-4)
    assert total.gradient_norm == pytest.approx(64 * mean.gradient_norm, rel=1e-4)


def test_dropout_is_noise_too():
    batch = torch.ones(64, 20), torch.zeros(64, 1)  # all samples alike: only the masks differ
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 1))
    assert measured([batch], model.train()).variance > 0.1
    assert measured([batch], model.eval()).variance < 1e-8


def reason_of(batches, model=None, loss_fn=F.mse_loss):
    noise = measured(batches, model, loss_fn)
    assert noise.noise_scale is None
    return noise.reason


def test_reasons():
    generator = torch.Generator().manual_seed(7)
    assert reason_of([regression_batch(1, generator)]) is Unavailable.ONE_SAMPLE
    zero = torch.zeros(8, DIMENSIONS), torch.zeros(8, 1)
    assert reason_of([zero]) is Unavailable.NO_GRADIENT
    assert measured([zero]).is_zero_within_noise
    infinite = torch.full((8, DIMENSIONS), math.inf), torch.zeros(8, 1)
    assert reason_of([infinite]) is Unavailable.GRADIENT_NOT_FINITE


def test_one_sample_in_each_of_two_batches_is_enough():
    generator = torch.Generator().manual_seed(8)
    noise = measured([regression_batch(1, generator), regression_batch(1, generator)])
    assert noise.variance > 0
    assert (noise.num_parts, noise.signal_std_error, noise.is_zero_within_noise) == (2, None, None)


class OfAFixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(DIMENSIONS, 1)

    def forward(self, inputs):
        return self.layer(inputs).reshape(16, 1)


def test_a_model_that_takes_whole_batches_only():
    generator = torch.Generator().manual_seed(9)
    batches = [regression_batch(16, generator) for _ in range(3)]
    assert reason_of(batches[:1], OfAFixedSize()) is Unavailable.NOT_SPLITTABLE
    assert measured(batches, OfAFixedSize()).num_parts == 3


def test_samples_that_cannot_be_counted():
    class LastState(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = nn.RNN(3, 1)

        def forward(self, inputs):
            return self.memory(inputs)[1][0]

    packed = pack_padded_sequence(torch.randn(5, 4, 3), torch.tensor([5, 4, 2, 2]))
    assert reason_of([({"inputs": packed}, torch.zeros(4, 1))], LastState()) is Unavailable.UNKNOWN_SIZES
    assert reason_of([(torch.randn(5, 4, 3), torch.zeros(4, 1))], LastState()) is Unavailable.UNKNOWN_SIZES


def test_costs_one_evaluation_and_a_third_where_batches_are_split():
    generator = torch.Generator().manual_seed(10)
    for sizes, cost in (([64], 4 / 3), ([8] * 8, 1.0), ([8] * 40, 1.0)):
        objective = Objective(regression_model(), F.mse_loss, [regression_batch(size, generator) for size in sizes])
        noise = gradient_noise(objective)
        assert objective.cost == pytest.approx(cost)
        assert noise.num_parts == min(16, max(8, len(sizes)))


def test_a_small_memory_bound_leaves_fewer_parts():
    batch = regression_batch(64, torch.Generator().manual_seed(11))
    objective = Objective(regression_model(), F.mse_loss, [batch], most_bytes=4 * 2 * 8 * DIMENSIONS)
    assert gradient_noise(objective).num_parts == 4


def test_same_bits_and_nothing_left_behind():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(DIMENSIONS, 1))
    batch = regression_batch(64, torch.Generator().manual_seed(12))
    state = torch.get_rng_state()
    first = measured([batch], model)
    assert isinstance(first, GradientNoise)
    assert first == measured([batch], model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_one_part_is_refused():
    with pytest.raises(ArgumentError) as caught:
        moments_of(torch.ones(1, 3), [4])
    assert str(caught.value) == "gradients must be those of at least two parts, got 1; split the batch"


def test_batches_of_every_kind_are_split():
    dictionary = {"input_ids": torch.arange(6).reshape(3, 2), "names": ["a", "b", "c"], "scale": torch.tensor(2.0)}
    parts = parts_of(dictionary, 8)
    assert [count for _, count in parts] == [1, 1, 1]
    assert parts[1][0]["names"] == ["b"]
    assert parts[1][0]["input_ids"].tolist() == [[2, 3]]
    assert float(parts[2][0]["scale"]) == 2.0
    nested = ((torch.zeros(4, 2), torch.zeros(4)), torch.zeros(4))
    assert [count for _, count in parts_of(nested, 2)] == [2, 2]
    assert batch_size((torch.zeros(3), torch.zeros(4))) is None
    assert parts_of((torch.zeros(1), torch.zeros(1)), 2) is None


def test_a_part_that_does_not_run_leaves_dropouts_masks_as_they_are():
    class Wary(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 32), nn.Dropout(0.5), nn.Linear(32, 1))

        def forward(self, x):
            if len(x) < 8:
                raise RuntimeError("too small a batch")
            return self.layers(x)

    objective = Objective(Wary(), F.mse_loss, [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(2)])
    assert gradient_noise(objective).num_parts == 2
    assert objective.loss() == objective.loss()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(6, 3), (6,)),
        (nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten(0)), (2, 4, 4)),
    ],
)
def test_a_sample_without_a_dimension_for_samples_is_one(model, shape):
    torch.manual_seed(0)
    singles = [(torch.randn(shape), torch.randint(3, ())) for _ in range(8)]
    rows = [(torch.stack([x]), torch.stack([y])) for x, y in singles]
    found = gradient_noise(Objective(model, F.cross_entropy, singles))
    assert found.num_samples == 8
    if isinstance(model, nn.Linear):
        expected = gradient_noise(Objective(model, F.cross_entropy, rows))
        assert found.variance == pytest.approx(expected.variance, rel=1e-5)
    alone = gradient_noise(Objective(model, F.cross_entropy, singles[:1]))
    assert (alone.num_samples, alone.reason) == (1, Unavailable.ONE_SAMPLE)


def test_one_target_for_all_samples_leaves_them_samples():
    torch.manual_seed(0)
    batch = torch.randn(8, 3), torch.zeros(())
    objective = Objective(nn.Linear(3, 1), lambda outputs, target: (outputs - target).square().mean(), [batch])
    assert gradient_noise(objective).num_samples == 8
