"""Batches that are not finite, and models, steps and loaders that write into their batches."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.refusal import Refusal


def samples(num_samples=256):
    torch.manual_seed(0)
    inputs = torch.randn(num_samples, 8)
    return inputs, (inputs @ torch.randn(8, 3)).argmax(1)


def network(*first):
    torch.manual_seed(1)
    return nn.Sequential(*first, nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def find(model, loader, loss_fn=F.cross_entropy, **options):
    return cw.lr_find(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, loader, progress=False, **options)


def own_step(model, write=lambda batch: batch, losses=None):
    """A user's own update; it may write into its batch, and say that its loss is something else."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = iter(range(10_000))

    def train_step(batch):
        inputs, targets = write(batch)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item() if losses is None else losses(next(calls), loss.item())

    return {"train_step": train_step, "model": model, "optimizer": optimizer, "progress": False}


@pytest.mark.parametrize("index", [3, 40, 70, 100, 131, 170, 200, 230])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_sample_that_is_not_finite_is_found_in_whatever_batch_it_is(index, value):
    inputs, targets = samples()
    inputs[index, 2] = value
    result = find(network(), DataLoader(TensorDataset(inputs, targets), batch_size=32))
    assert result.refusal is Refusal.NONFINITE_START
    assert result.max_lr is None
    assert "look for NaN or infinity in the inputs" in result.refusal.remedy


def test_a_sample_that_only_a_later_sweep_meets_is_found_too():
    inputs, targets = samples(32 * 60)
    inputs[32 * 40, 2] = np.nan
    result = find(network(), DataLoader(TensorDataset(inputs, targets), batch_size=32))
    assert result.refusal is Refusal.NONFINITE_START
    assert result.num_steps > 40


def test_a_validation_batch_that_is_not_finite_is_found():
    inputs, targets = samples()
    train = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    broken = inputs.clone()
    broken[70] = np.nan
    valid = DataLoader(TensorDataset(broken, targets), batch_size=32)
    assert find(network(), train, valid_loader=valid).refusal is Refusal.NONFINITE_START


def test_an_own_step_on_a_batch_that_is_not_finite_is_refused_within_its_steps():
    inputs, targets = samples(32 * 60)
    inputs[32 * 40, 2] = np.nan
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    result = cw.lr_find(train_loader=loader, **own_step(network()))
    assert result.refusal is Refusal.NONFINITE_START
    assert result.num_steps <= 100


@pytest.mark.parametrize("every", [2, 3, 4, 5, 7, 30, 55])
def test_a_step_that_sometimes_returns_nan_ends_in_a_result(every):
    step = own_step(network(), losses=lambda call, loss: np.nan if call % every == every - 1 else loss)
    result = cw.lr_find(train_loader=DataLoader(TensorDataset(*samples()), batch_size=32), **step)
    assert (result.max_lr is None) == (result.refusal is not None)
    assert result.num_steps <= 100


def halved(batch):
    return batch[0].mul_(0.5), batch[1]


def emptied(batch):
    return batch.pop("x"), batch.pop("y")


def test_a_model_that_writes_into_its_inputs_gets_the_same_answer_and_leaves_them_alone():
    batches = [(inputs, targets) for inputs, targets in DataLoader(TensorDataset(*samples()), batch_size=32)]
    before = [inputs.clone() for inputs, _ in batches]
    writing, other = (find(network(nn.Dropout(0.2, inplace=inplace)), batches) for inplace in (True, False))
    assert writing.max_lr == other.max_lr
    assert all(torch.equal(inputs, old) for (inputs, _), old in zip(batches, before, strict=True))


def test_a_step_that_writes_into_its_batch_gets_the_same_answer():
    loader = DataLoader(TensorDataset(*samples()), batch_size=32)
    writing = cw.lr_find(train_loader=loader, **own_step(network(), halved))
    other = cw.lr_find(train_loader=loader, **own_step(network(), lambda batch: (0.5 * batch[0], batch[1])))
    assert writing.max_lr == other.max_lr


def test_a_step_that_takes_its_batch_apart_is_fine():
    batches = [{"x": x, "y": y} for x, y in DataLoader(TensorDataset(*samples()), batch_size=32)]
    result = cw.lr_find(train_loader=batches, **own_step(network(), emptied))
    assert result.max_lr is not None
    assert all(set(batch) == {"x", "y"} for batch in batches)


class Refilled:
    """Yields one buffer again and again."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        buffer = torch.empty(32, 8), torch.empty(32, dtype=torch.long)
        for batch in self.loader:
            for place, tensor in zip(buffer, batch, strict=True):
                place.copy_(tensor)
            yield buffer


def test_a_loader_that_fills_one_buffer_again_is_fine():
    loader = DataLoader(TensorDataset(*samples()), batch_size=32)
    assert find(network(), Refilled(loader)).max_lr == find(network(), loader).max_lr


class Wrapped:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        yield from self.loader


@pytest.mark.parametrize("wrap", [lambda loader: loader, Wrapped])
def test_a_range_test_half_way_through_an_epoch_leaves_the_rest_of_it(wrap):
    loader = wrap(DataLoader(TensorDataset(*samples()), batch_size=32, num_workers=1, persistent_workers=True))
    epoch = iter(loader)
    next(epoch)
    find(network(), loader)
    assert len(list(epoch)) == 7
    assert len(list(loader)) == 8


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), torch.tensor(-0.1)])
def test_a_rate_that_is_no_rate_is_refused(rate):
    model = network()
    optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.1)
    optimizer.param_groups[1]["lr"] = rate
    with pytest.raises(cw.ArgumentError) as caught:
        cw.lr_find(model, optimizer, F.cross_entropy, DataLoader(TensorDataset(*samples()), batch_size=32))
    assert str(caught.value) == (
        f"optimizer must have rates of at least 0 that are finite, got lr={float(rate)!r} in group 1; "
        "set them to the ratios that the groups are to have, all 1.0 if they are to be alike"
    )


@pytest.mark.parametrize("limits", [{"start_lr": 1e30, "num_steps": 20}, {"end_lr": 1e30}])
def test_the_record_of_a_sweep_that_broke_at_once_is_plain_json_and_comes_back_equal(limits):
    import json

    loader = DataLoader(TensorDataset(*samples()), batch_size=32)
    result = find(network(), loader, total_steps=np.int64(500), **limits)
    assert cw.RangeTest.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert (result.refusal is cw.Refusal.STARTS_TOO_HIGH) == ("start_lr" in limits)


def test_an_optimizer_that_maximises_is_told_to_negate_the_loss():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    with pytest.raises(cw.ArgumentError) as caught:
        cw.lr_find(model, optimizer, F.cross_entropy, DataLoader(TensorDataset(*samples()), batch_size=32))
    assert str(caught.value) == (
        "optimizer must minimise the loss, got maximize=True in group 0; "
        "negate the loss instead: the updates are the same"
    )


class Complex(nn.Module):
    """Linear, with complex weights that begin imaginary."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.complex(torch.zeros(8, 3), 0.1 * torch.randn(8, 3)))

    def forward(self, inputs):
        return (inputs.to(torch.cfloat) @ self.weight).imag


def test_complex_parameters_have_a_rate():
    torch.manual_seed(0)
    result = find(Complex(), DataLoader(TensorDataset(*samples(2048)), batch_size=32))
    assert result.refusal is None
    assert 0.3 < result.max_lr < 30.0


def test_a_step_that_returns_the_loss_with_its_graph_does_not_warn():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_step(batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(*samples()), batch_size=32)
    assert cw.lr_find(train_step=train_step, model=model, optimizer=optimizer, train_loader=loader).max_lr is not None


class OwnIterator:
    """A loader that keeps an iterator of its own, under the name that torch's uses."""

    def __init__(self, loader):
        self.loader, self._iterator = loader, None

    def __iter__(self):
        self._iterator = iter(self.loader)
        return iter(self.next_one, None)

    def next_one(self):
        return next(self._iterator, None)


def test_a_loader_of_ones_own_keeps_its_iterator():
    loader = OwnIterator(DataLoader(TensorDataset(*samples()), batch_size=32))
    next(iter(loader))
    assert find(network(), loader).max_lr is not None
