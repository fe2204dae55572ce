import numpy as np
import pytest
import torch

from cyclewise.landscape.lanczos import Settled, lanczos, random_start
from cyclewise.landscape.trace import trace
from tests.landscape.planted import SPECTRA, matrix

NUM_SEEDS = 30


def estimates(eigenvalues, *, num_products=72, wanted=0.025):
    a = matrix(eigenvalues)
    magnitude = float(np.abs(eigenvalues).sum())
    for seed in range(NUM_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        start = random_start(len(a), dtype=a.dtype, device=a.device, generator=generator)
        settled = Settled(0.005, floor=5e-4, fewest_steps=24)
        space = lanczos(lambda v: a @ v, start, num_steps=int(0.8 * num_products), is_done=settled)
        yield trace(
            lambda v: a @ v,
            space,
            num_products=num_products - space.num_products,
            wanted_error=wanted * magnitude,
            generator=generator,
        )


@pytest.mark.parametrize("name", SPECTRA)
def test_error_is_small_and_said(name):
    eigenvalues = SPECTRA[name]
    magnitude = float(np.abs(eigenvalues).sum())
    raw, errors = [], []
    for found, spent in estimates(eigenvalues):
        assert spent <= 72
        assert found.std_error <= 0.05 * magnitude
        raw.append(found.value - eigenvalues.sum())
        errors.append(raw[-1] / (found.std_error + 1e-6 * magnitude))
    assert np.sqrt(np.mean(np.square(errors))) <= 1.3
    assert max(map(abs, errors)) <= 4.0
    # Unbiased. Not so the quotients: a low estimate comes with a low error.
    assert abs(np.mean(raw)) <= 3.0 * np.std(raw) / np.sqrt(NUM_SEEDS) + 1e-6 * magnitude


@pytest.mark.parametrize("rank", [2, 5, 10, 15, 25, 40])
def test_flat_spectra_of_low_rank_do_not_fool_the_error(rank):
    # Where the probes' images nearly hold the whole range, their own spread says nothing of the error.
    eigenvalues = np.r_[np.ones(rank), np.zeros(400 - rank)]
    errors = [(found.value - rank) / (found.std_error + 1e-5 * rank) for found, _ in estimates(eigenvalues)]
    assert max(map(abs, errors)) <= 4.5
    assert np.sqrt(np.mean(np.square(errors))) <= 1.5


def test_a_known_space_that_holds_everything_is_exact():
    a = matrix(np.linspace(-1.0, 3.0, 20), torch.float64)
    space = lanczos(lambda v: a @ v, torch.randn(20, dtype=torch.float64), num_steps=20)
    found, spent = trace(lambda v: a @ v, space, num_products=10, wanted_error=0.0, generator=torch.Generator())
    assert found.value == pytest.approx(20.0)
    assert (found.std_error, found.num_probes, spent) == (0.0, 0, 0)


def test_probes_that_span_everything_are_exact():
    a = matrix(np.linspace(-1.0, 3.0, 20), torch.float64)
    space = lanczos(lambda v: a @ v, torch.randn(20, dtype=torch.float64), num_steps=5)
    found, spent = trace(lambda v: a @ v, space, num_products=50, wanted_error=0.0, generator=torch.Generator())
    assert found.value == pytest.approx(20.0)
    assert found.std_error == 0.0
    assert spent == 30
