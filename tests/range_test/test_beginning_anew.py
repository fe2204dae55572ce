"""A last sweep that the ones before it have sent too high begins anew, lower."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test import sweep
from tests.range_test.tasks import make_task


@pytest.mark.parametrize(
    ("optimizer_class", "num_steps"), [(torch.optim.SGD, 40), (torch.optim.SGD, 100), (torch.optim.Adam, 100)]
)
def test_a_last_sweep_that_begins_too_high_begins_anew(optimizer_class, num_steps, monkeypatch):
    loader = make_task(num_samples=1280)[2]  # no sample is learned by heart
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    expected = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)
    monkeypatch.setattr(sweep, "_floor", lambda curve, *, is_cut: 2 * (150.0 * float(expected.max_lr),))
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)
    _, *too_high, last = result.close_ups
    assert too_high
    assert all(len(curve.lr) <= 10 for curve in too_high)
    assert last.lr[0] == pytest.approx(too_high[-1].lr[0] / 10**0.6)
    # Begun at 19 times the rate, the two still agree.
    assert expected.interval[0] < result.interval[1]
    assert result.interval[0] < expected.interval[1]
    assert result.num_steps <= num_steps
    assert result.num_steps - 1 == sum(len(curve.lr) for curve in (result.curve, *result.close_ups))
    assert cw.RangeTest.from_dict(result.to_dict()) == result
    assert result.plot() is not None


def test_a_rate_that_only_blows_up_outputs_whose_size_does_not_count_begins_anew():
    torch.manual_seed(0)
    labels = torch.randint(4, (1280,))
    inputs = torch.randn(1280, 16) + 2.0 * F.one_hot(labels, 16)

    def contrastive(outputs, targets):
        directions = F.normalize(outputs, dim=1)
        own = torch.eye(len(targets), dtype=torch.bool)
        likeness = (directions @ directions.T / 0.2).masked_fill(own, -1e9)
        same = (targets[:, None] == targets) & ~own
        return -((likeness.log_softmax(1) * same).sum(1) / same.sum(1).clamp(min=1)).mean()

    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(inputs, labels), 64, shuffle=True)
    result = cw.lr_find(model, optimizer, contrastive, loader)
    second, behind, last = result.close_ups
    # It left the earlier sweep's losses far above it, but raised none above the start.
    assert len(behind.lr) >= 8
    assert last.lr[0] == second.lr[0]
    assert result.max_lr < behind.lr[0]


class Collapsing(nn.Module):
    """Its outputs are all the same once a rate has made the weights large."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, inputs):
        outputs = self.linear(inputs)
        return outputs if float(self.linear.weight.detach().abs().max()) < 3.0 else 0.0 * outputs


@pytest.mark.parametrize(("num_steps", "begins_anew"), [(300, True), (100, False)])
def test_a_last_sweep_without_the_link_of_the_second_begins_anew(num_steps, begins_anew, monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(3200, 8)
    loader = DataLoader(TensorDataset(inputs, inputs[:, :3].argmax(1)), 16, shuffle=True)
    model = Collapsing()
    optimizer = torch.optim.Adam(model.parameters())
    expected = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)
    # Where the loss stays at that of the classes' shares. Here others would see it, too.
    monkeypatch.setattr(sweep, "_last_range", lambda *_, **__: (3.0, 30.0))
    for watch in (sweep.Raised, sweep.LeftBehind):
        monkeypatch.setattr(watch, "update", lambda *_: False)
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)
    assert (len(result.close_ups) > len(expected.close_ups)) == begins_anew
    if begins_anew:
        assert expected.interval[0] < result.max_lr < expected.interval[1]
