"""Models that write into the batch they are given, and loaders that fill one buffer again and again."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.halves import step_noise
from cyclewise.landscape.noise import gradient_noise
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.paths import barrier
from cyclewise.stepping import Step
from tests.writing import Halving, OneBuffer, pair


def values(diagnosis):
    return {name: value for name, value in diagnosis.to_dict().items() if name != "settings"}


def test_a_model_that_writes_is_diagnosed_as_one_that_does_not():
    writing, plain, batches = pair()
    before = [inputs.clone() for inputs, _ in batches]
    starts = [{name: value + 0.1 for name, value in writing.state_dict().items()} for _ in range(2)]
    found = cw.diagnose(writing, F.cross_entropy, batches, start=starts[0])
    assert all(map(torch.equal, before, (inputs for inputs, _ in batches)))
    expected = cw.diagnose(plain, F.cross_entropy, batches, start=starts[1])
    assert values(found) == values(expected)


@pytest.mark.parametrize("layer", [nn.Dropout(0.3, inplace=True), nn.ReLU(inplace=True), nn.Hardtanh(-1, 1, True)])
def test_layers_that_work_in_place_leave_the_batches_alone(layer):
    torch.manual_seed(0)
    batches = [(torch.randn(16, 6), torch.randint(3, (16,)))]
    before = batches[0][0].clone()
    objective = Objective(nn.Sequential(layer, nn.Linear(6, 3)), F.cross_entropy, batches)
    losses = [objective.loss() for _ in range(3)]
    gradient_noise(objective)
    objective.product(objective.gradient())
    assert losses == [objective.loss()] * 3
    assert torch.equal(batches[0][0], before)


@pytest.mark.parametrize("most_bytes", [0, 2**30])
def test_products_are_those_of_the_model_that_does_not_write(most_bytes):
    writing, plain, batches = pair()
    objectives = [Objective(model, F.cross_entropy, batches, most_bytes=most_bytes) for model in (writing, plain)]
    vector = torch.randn(objectives[0].num_parameters)
    for _ in range(2):
        products = [objective.product(vector) for objective in objectives]
        assert torch.equal(*products)


def test_a_loader_may_fill_one_buffer():
    _, plain, batches = pair()
    found = cw.diagnose(plain, F.cross_entropy, OneBuffer(batches))
    assert values(found) == values(cw.diagnose(plain, F.cross_entropy, batches))


def test_a_learners_loader_may_fill_one_buffer():
    _, plain, batches = pair()
    learners = [cw.Learner(plain, cw.Data(loader), loss_fn=F.cross_entropy) for loader in (OneBuffer(batches), batches)]
    found, expected = (learner.diagnose(num_batches=3) for learner in learners)
    assert values(found) == values(expected)


def test_a_line_between_two_models_that_write():
    writing, plain, batches = pair()
    other = Halving(in_place=True)
    found = barrier(writing, other, F.cross_entropy, batches, num_points=5)
    expected = barrier(plain, other, F.cross_entropy, batches, num_points=5)
    assert found.to_dict() == expected.to_dict()


def test_the_noise_of_a_step_leaves_the_batch_alone():
    writing, plain, batches = pair()
    before = batches[0][0].clone()
    moments = [
        step_noise(
            Step(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy), batches[:1],
            list(model.parameters()), scale=1.0,
        )
        for model in (writing, plain)
    ]  # fmt: skip
    assert torch.equal(batches[0][0], before)
    assert moments[0] == moments[1]
