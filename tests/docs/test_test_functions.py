"""Classic test functions: each has its minimum where the gallery says, and the swarm finds it."""

import pytest
import torch

from docs import test_functions as gallery


@pytest.mark.parametrize("classic", gallery.CLASSICS, ids=lambda classic: classic.name)
def test_the_minimum_is_where_the_gallery_says(classic):
    minimum = torch.tensor(classic.minimum, dtype=torch.float64)
    assert float(classic.function(minimum)) == pytest.approx(classic.lowest, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    points = (2 * torch.rand(2000, 2, generator=generator, dtype=torch.float64) - 1) * classic.reach
    assert float(classic.function(points).min()) > classic.lowest
    points = minimum + 1e-3 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    assert float(classic.function(points).min()) >= classic.lowest - 1e-9


def test_the_swarm_closes_in_and_is_drawn(tmp_path):
    classic = gallery.CLASSICS[0]
    found = {
        "swarm (PSO)": gallery.searched(classic, "PSO", 0),
        "gradient descent": gallery.descended(classic, 0.1, 0),
    }
    points, losses = found["swarm (PSO)"]
    assert points.shape == (gallery.BUDGET - 1, 2)  # the untouched start was seen twice, to know whether there is noise
    assert losses.min() < 0.1 < losses[0]
    gallery.draw(classic, found, tmp_path / "sphere.png")
    assert (tmp_path / "sphere.png").stat().st_size < 100_000
