import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclewise.landscape.density import Density, quadrature
from cyclewise.landscape.lanczos import lanczos
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.spectrum import sharpness, spectrum
from tests.landscape.planted import SPECTRA, Quadratic, distance, matrix


def objective_of(eigenvalues, dtype=torch.float32):
    batch = torch.ones(1, dtype=dtype), torch.ones(1, dtype=dtype)
    return Objective(Quadratic(matrix(eigenvalues, dtype)), lambda output, target: output, [batch])


@pytest.mark.parametrize("name", SPECTRA)
def test_planted_quadratics_at_the_default_budget(name):
    eigenvalues = SPECTRA[name]
    objective = objective_of(eigenvalues)
    found = spectrum(objective)
    assert objective.cost <= 155.0
    assert not found.is_exact
    assert abs(found.largest.value - eigenvalues.max()) <= 0.02 * abs(eigenvalues.max())
    allowed = max(0.02 * abs(eigenvalues.min()), 1e-3 * eigenvalues.max())
    assert abs(found.smallest.value - eigenvalues.min()) <= allowed
    magnitude = np.abs(eigenvalues).sum()
    assert found.trace.std_error <= 0.05 * magnitude
    assert abs(found.trace.value - eigenvalues.sum()) <= 3 * found.trace.std_error + 1e-6 * magnitude
    assert sum(found.density.weights) == pytest.approx(1.0)
    assert distance(found.density.nodes, found.density.weights, eigenvalues) <= 0.03
    positive = eigenvalues[eigenvalues > 1e-5 * np.abs(eigenvalues).max()]
    condition = eigenvalues.max() / positive.min()
    assert found.condition.is_lower_bound == (name not in ("half and half", "repeated", "twenty of one"))
    assert found.condition.value <= condition * (1 + 1e-3)


def test_small_models_are_exact():
    eigenvalues = np.r_[3.0, -10.0, np.linspace(0.01, 1.0, 200)]
    objective = objective_of(eigenvalues, torch.float64)
    found = spectrum(objective)
    assert found.is_exact
    assert found.density.nodes == pytest.approx(sorted(eigenvalues))
    assert (found.largest.value, found.smallest.value) == pytest.approx((3.0, -10.0))
    assert found.trace.value == pytest.approx(eigenvalues.sum())
    assert found.trace.std_error == 0.0
    assert found.condition.value == pytest.approx(300.0)
    assert not found.condition.is_lower_bound
    assert objective.cost <= 150.0


def test_the_smallest_in_itself_with_a_raised_budget():
    eigenvalues = SPECTRA["condition 1e6"]
    found = spectrum(objective_of(eigenvalues, torch.float64), budget=1500.0)
    assert found.smallest.value == pytest.approx(1e-6, rel=0.02)
    assert found.condition.value == pytest.approx(1e6, rel=0.02)


def test_a_null_space_is_left_out_of_the_condition_number():
    found = spectrum(objective_of(np.r_[np.zeros(60), np.linspace(0.5, 2.0, 60)]))
    assert found.condition.value == pytest.approx(4.0, rel=1e-3)
    assert spectrum(objective_of(-np.linspace(0.5, 2.0, 60))).condition is None


def network(kind):
    if kind == "mlp":
        return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 15), nn.GELU(), nn.Linear(15, 4))
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 5)), nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.Flatten(),
        nn.Linear(160, 4),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mlp", "convolution"])
def test_networks_against_the_dense_hessian_in_float64(kind):
    model = network(kind)
    batches = [(torch.randn(50, 10), torch.randint(4, (50,))) for _ in range(2)]
    exact = Objective(copy.deepcopy(model), F.cross_entropy, batches, dtype=torch.float64)
    hessian = exact.products(torch.eye(exact.num_parameters, dtype=torch.float64))
    eigenvalues = torch.linalg.eigvalsh((hessian + hessian.T) / 2).numpy()
    found = spectrum(Objective(model, F.cross_entropy, batches))
    assert not found.is_exact
    assert found.largest.value == pytest.approx(eigenvalues[-1], rel=0.02)
    assert abs(found.smallest.value - eigenvalues[0]) <= max(0.02 * abs(eigenvalues[0]), 1e-3 * eigenvalues[-1])
    assert found.trace.std_error <= 0.05 * np.abs(eigenvalues).sum()
    assert abs(found.trace.value - eigenvalues.sum()) <= 3 * found.trace.std_error
    assert distance(found.density.nodes, found.density.weights, eigenvalues) <= 0.03


def test_a_network_of_a_few_hundred_numbers_is_done_exactly_at_the_default_budget():
    model = nn.Sequential(nn.Linear(10, 25), nn.Tanh(), nn.Linear(25, 8))
    objective = Objective(model, F.cross_entropy, [(torch.randn(64, 10), torch.randint(8, (64,))) for _ in range(4)])
    assert objective.num_parameters == 483
    found = spectrum(objective)
    assert found.is_exact
    assert found.trace.std_error == 0.0
    assert objective.cost <= 150.0


def test_same_seed_same_bits():
    runs = [spectrum(objective_of(SPECTRA["network"]), seed=seed) for seed in (0, 0, 1)]
    assert runs[0].density == runs[1].density
    assert runs[0].trace == runs[1].trace
    assert runs[0].density != runs[2].density


def test_sharpness_alone():
    objective = objective_of(SPECTRA["network"])
    assert sharpness(objective).value == pytest.approx(100.0, rel=0.01)
    assert objective.cost < 30.0


def test_a_quadrature_converges_with_depth_and_probes():
    eigenvalues = SPECTRA["normal"]
    a = matrix(eigenvalues)

    def error(depth, count):
        spaces = [lanczos(lambda v: a @ v, torch.randn(len(a)), num_steps=depth) for _ in range(count)]
        found = quadrature(spaces)
        return distance(found.nodes, found.weights, eigenvalues)

    assert error(60, 8) < error(30, 2) < error(6, 1)
    assert error(60, 8) < 0.01


def test_a_curve_holds_all_of_the_mass():
    density = Density((-1.0, 0.0, 2.0), (0.2, 0.5, 0.3), num_probes=0)
    places, heights = density.curve(2000)
    assert np.trapezoid(heights, places) == pytest.approx(1.0, abs=0.01)
    assert density.mean_magnitude() == pytest.approx(0.8)
    single = Density((0.0,), (1.0,), num_probes=1)
    assert np.isfinite(single.curve()[1]).all()


@pytest.mark.parametrize("most_bytes", [2**31, 0])
def test_a_gradient_before_products_is_the_gradient_and_free_where_graphs_are_kept(most_bytes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 1))
    batches = [(torch.randn(6, 3), torch.randn(6, 1)) for _ in range(3)]
    vector = torch.randn(26)
    alone, joint = (Objective(model, nn.functional.mse_loss, batches, most_bytes=most_bytes) for _ in range(2))
    gradient = joint.gradient(before_products=True)
    assert torch.allclose(gradient, alone.gradient(), atol=1e-6)
    assert torch.equal(joint.product(vector), alone.product(vector))
    spared = alone.cost - joint.cost
    assert spared == pytest.approx(1.0 if most_bytes else 0.0, abs=1e-6)
