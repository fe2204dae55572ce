import numpy as np
import pytest
import torch

from cyclewise.landscape.lanczos import Settled, lanczos, random_start
from tests.landscape.planted import SPECTRA, matrix


def run(a, num_steps, seed=0, **settings):
    start = random_start(len(a), dtype=a.dtype, device=a.device, generator=torch.Generator().manual_seed(seed))
    return lanczos(lambda vector: a @ vector, start, num_steps=num_steps, **settings)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("capacity", [None, 16])
def test_both_ends_with_residuals_that_hold(name, dtype, capacity):
    eigenvalues = SPECTRA[name]
    a = matrix(eigenvalues, dtype)
    space = run(a, 60, capacity=capacity, is_done=Settled(0.005, floor=5e-4, fewest_steps=24))
    largest, smallest = space.pair(-1), space.pair(0)
    assert abs(largest.value - eigenvalues.max()) <= 0.02 * abs(eigenvalues.max())
    allowed = max(0.02 * abs(eigenvalues.min()), 1e-3 * eigenvalues.max())
    assert abs(smallest.value - eigenvalues.min()) <= allowed
    for pair in (largest, smallest):
        y = pair.vector.double()
        assert float(y.norm()) == pytest.approx(1.0, abs=1e-5)
        true = float((a.double() @ y - pair.value * y).norm())
        slack = 100 * torch.finfo(dtype).eps * np.abs(eigenvalues).max()
        assert true <= 1.02 * pair.residual + slack
        assert np.abs(eigenvalues - pair.value).min() <= pair.residual + slack


def test_the_basis_is_orthonormal_and_the_projection_tridiagonal():
    space = run(matrix(SPECTRA["network"]), 50)
    assert torch.allclose(space.basis @ space.basis.T, torch.eye(50), atol=1e-5)
    assert np.count_nonzero(np.triu(space.projected, 2)) == 0
    assert not space.is_restarted
    assert space.num_products == 50


def test_few_distinct_eigenvalues_exhaust_the_space():
    space = run(matrix(SPECTRA["half and half"], torch.float64), 50)
    assert (space.num_products, space.coupling, space.following) == (2, 0.0, None)
    assert np.linalg.eigvalsh(space.projected) == pytest.approx([-10.0, 3.0])


def test_as_many_steps_as_numbers_give_every_eigenvalue():
    eigenvalues = np.linspace(-1.0, 2.0, 30)
    space = run(matrix(eigenvalues, torch.float64), 100)
    assert np.linalg.eigvalsh(space.projected) == pytest.approx(eigenvalues, abs=1e-12)


def test_a_zero_matrix():
    space = run(torch.zeros(50, 50), 10)
    assert (space.pair(-1).value, space.pair(0).value, space.num_products) == (0.0, 0.0, 1)


def test_the_largest_alone_takes_fewer_products():
    a = matrix(SPECTRA["network"])
    alone = run(a, 60, is_done=Settled(0.005, floor=None))
    both = run(a, 60, is_done=Settled(0.005, floor=5e-4))
    assert alone.num_products < both.num_products
    assert alone.pair(-1).value == pytest.approx(SPECTRA["network"].max(), rel=0.01)


def test_random_starts_are_those_of_the_generator():
    starts = [
        random_start(5, dtype=torch.float32, device=torch.device("cpu"), generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
