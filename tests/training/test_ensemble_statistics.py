"""The batch statistics of an ensemble's members, and no trace of measuring them."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.training.ensemble import Ensemble
from tests.training.three_cycles import arrays, data, fitted, normalised, valid_arrays


def fingerprint(model):
    return (
        [tensor.clone() for tensor in (*model.parameters(), *model.buffers())],
        [(id(module), module.training, getattr(module, "momentum", None)) for module in model.modules()],
        torch.get_rng_state(),
    )


def assert_untouched(model, before):
    tensors, modes, generator = fingerprint(model)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[0], strict=True))
    assert modes == before[1]
    assert torch.equal(generator, before[2])


@pytest.mark.parametrize("shuffles", [False, True])
def test_batch_statistics_are_those_of_torchs_update_bn(shuffles):
    learn, snapshots = fitted(model=normalised())
    train = DataLoader(TensorDataset(*arrays()), batch_size=20, shuffle=shuffles)
    parts = cw.Data(train, learn.data.valid_loader)
    ensemble = Ensemble(learn.model, snapshots.states, parts)
    predicted = ensemble.predict()
    inputs, _ = valid_arrays(parts.valid_loader)
    by_hand = []
    for state in snapshots.states:
        member = normalised()
        member.load_state_dict(state)
        torch.manual_seed(0)
        torch.optim.swa_utils.update_bn(train, member)
        with torch.no_grad():
            by_hand.append(torch.softmax(member.eval()(inputs), dim=1))
    torch.testing.assert_close(predicted, torch.stack(by_hand).mean(dim=0))


class Counts:
    # On the class, since what an instance counts is put back like all of a loader.
    passes = 0

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        Counts.passes += 1
        return iter(self.loader)


def test_batch_statistics_are_computed_once_and_the_snapshots_stay():
    learn, snapshots = fitted(model=normalised())
    before = copy.deepcopy(list(snapshots.states))
    parts = cw.Data(Counts(learn.data.train_loader), learn.data.valid_loader)
    ensemble = Ensemble(learn.model, snapshots.states, parts)
    assert Counts.passes == 0
    first = ensemble.last(2).evaluate()
    assert Counts.passes == 2
    ensemble.members()
    assert Counts.passes == 3
    torch.manual_seed(5)
    assert ensemble.last(2).evaluate() == first
    ensemble.predict()
    assert Counts.passes == 3
    torch.testing.assert_close(list(snapshots.states), before, rtol=0, atol=0)


class Frozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def test_a_frozen_batch_normalisation_keeps_the_statistics_of_the_snapshot():
    model = Frozen(*normalised())
    model[1].running_mean.fill_(0.5)
    parts = data()
    inputs, _ = valid_arrays(parts.valid_loader)
    with torch.no_grad():
        expected = torch.softmax(model.eval()(inputs), dim=1)
    torch.testing.assert_close(Ensemble(model, [copy.deepcopy(model.state_dict())], parts).predict(), expected)


def test_no_trace_is_left():
    learn, snapshots = fitted(model=normalised())
    learn.model.train()
    learn.model[1].eval()
    inputs = torch.randn(3, 6)
    before, passes = fingerprint(learn.model), learn.data.train_loader.num_passes
    ensemble = Ensemble(learn.model, snapshots.states, learn.data)
    ensemble.evaluate()
    ensemble.members()
    ensemble.predict(inputs)
    assert_untouched(learn.model, before)
    assert learn.data.train_loader.num_passes == passes


@pytest.mark.parametrize("where", ["loader", "metric", "states"])
def test_no_trace_is_left_by_an_exception_which_passes_unchanged(where):
    learn, snapshots = fitted(model=normalised())
    error = KeyboardInterrupt("stop")

    class Breaks:
        def __iter__(self):
            yield from list(learn.data.train_loader)[:2]
            raise error

    def metric(outputs, targets):
        torch.rand(1)
        raise error

    states = list(snapshots.states)
    if where == "states":
        states[1] = {"0.weight": torch.zeros(8, 6)}
    parts = cw.Data(Breaks() if where == "loader" else learn.data.train_loader, data().valid_loader)
    ensemble = Ensemble(learn.model, states, parts, metrics={"m": metric} if where == "metric" else {})
    passes, before = learn.data.train_loader.num_passes, fingerprint(learn.model)
    with pytest.raises(RuntimeError if where == "states" else KeyboardInterrupt) as caught:
        ensemble.evaluate()
    assert where == "states" or caught.value is error
    assert where == "loader" or learn.data.train_loader.num_passes == passes
    assert_untouched(learn.model, before)
