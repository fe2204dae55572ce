"""Noise that a model or a loss draws from a generator of its own is held still, as that of the global ones is."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.objective import Objective

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(16, 4, generator=GENERATOR), torch.randn(16, 1, generator=GENERATOR)) for _ in range(2)]


class Noisy(nn.Module):
    """Adds noise of its own generator to its hidden units while it trains."""

    def __init__(self, generator, draw):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.generator, self.draw = generator, draw

    def forward(self, inputs):
        hidden = torch.tanh(self.first(inputs))
        return self.last(hidden + self.draw(self.generator, hidden.shape))


DRAWS = {
    "torch": (lambda: torch.Generator().manual_seed(7), lambda own, shape: torch.randn(shape, generator=own)),
    "numpy": (lambda: np.random.default_rng(7), lambda own, shape: torch.from_numpy(own.normal(size=shape)).float()),
    "old numpy": (lambda: np.random.RandomState(7), lambda own, shape: torch.tensor(own.normal(size=shape)).float()),
    "python": (lambda: random.Random(7), lambda own, shape: own.gauss(0.0, 1.0) * torch.ones(shape)),
}
STATES = {
    "torch": lambda own: own.get_state().tolist(),
    "numpy": lambda own: own.bit_generator.state,
    "old numpy": lambda own: own.get_state()[1].tolist(),
    "python": lambda own: own.getstate(),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_every_evaluation_sees_the_same_noise_and_no_two_batches_do(kind):
    make, draw = DRAWS[kind]
    model = Noisy(make(), draw)
    objective = Objective(model, F.mse_loss, [BATCHES[0], BATCHES[0]])
    assert objective.loss() == objective.loss()
    assert len(set(objective.batch_losses())) == 2
    assert STATES[kind](model.generator) == STATES[kind](make())
    other = Objective(model, F.mse_loss, [BATCHES[0], BATCHES[0]], seed=1)
    assert other.loss() != objective.loss()


def test_the_generator_of_a_loss_is_held_too():
    class NoisyLoss:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(7)

        def __call__(self, outputs, targets):
            return F.mse_loss(outputs + torch.randn(outputs.shape, generator=self.generator), targets)

    objective = Objective(nn.Linear(4, 1), NoisyLoss(), BATCHES)
    assert objective.loss() == objective.loss()


def test_curvature_of_a_model_with_noise_of_its_own_is_that_of_one_function():
    make, draw = DRAWS["torch"]
    diagnosis = cw.diagnose(Noisy(make(), draw), F.mse_loss, BATCHES)
    assert diagnosis.taylor.actual[0] == pytest.approx(diagnosis.taylor.predicted[0], rel=0.05)
