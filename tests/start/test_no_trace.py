"""What an objective holds, or names, is found as it was, and is the same for every candidate."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
LOADER = DataLoader(
    TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True)), batch_size=8, shuffle=True, generator=torch.Generator()
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def trained(candidate):
    optimizer = torch.optim.SGD(candidate.parameters(), lr=0.05)
    total = 0.0
    for inputs, targets in LOADER:
        optimizer.zero_grad()
        loss = F.mse_loss(candidate(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


class Counting:
    """An objective with a state of its own."""

    def __init__(self):
        self.calls = 0
        self.mean = torch.zeros(())

    def __call__(self, candidate):
        self.calls += 1
        loss = float(candidate(INPUTS).square().mean())
        self.mean += (loss - self.mean) / self.calls
        return loss


def test_a_loader_that_the_objective_names_is_the_same_for_every_candidate_and_left_as_it_was():
    state = LOADER.generator.get_state().clone()
    first, second = (cw.search_start(cw.LayerGains(network()), trained, budget=20, progress=False) for _ in range(2))
    assert torch.equal(LOADER.generator.get_state(), state)
    assert first == second


def test_the_objective_itself_is_left_as_it_was():
    for objective, passed in ((o := Counting(), o), (o := Counting(), o.__call__)):
        cw.search_start(cw.LayerGains(network()), passed, budget=10, progress=False)
        assert (objective.calls, objective.mean.item()) == (0, 0.0)


def test_bits_that_the_objective_draws_itself_are_the_same_for_every_candidate():
    class Drawing:
        def __init__(self):
            self.bits = np.random.PCG64(0)

        def __call__(self, candidate):
            return self.bits.random_raw() / 2**64

    objective = Drawing()
    found = cw.search_start(cw.LayerGains(network()), objective, budget=10, progress=False)
    assert len({evaluation.loss for evaluation in found.evaluations}) == 1
    assert objective.bits.random_raw() == np.random.PCG64(0).random_raw()
