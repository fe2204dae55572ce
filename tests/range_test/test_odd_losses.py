"""Losses and models that the range test can't ask everything: masked batches, own ids, another answer in eval mode."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.scoring import Scoring
from tests.range_test.tasks import make_task


class WithAuxiliaryHead(nn.Module):
    """Answers with two heads while it trains, and with one in eval mode, as Inception does."""

    def __init__(self, model):
        super().__init__()
        self.model, self.head = model, nn.Linear(10, 3)

    def forward(self, inputs):
        main = self.model(inputs)
        return (main, self.head(inputs)) if self.training else main


def both_heads(outputs, targets):
    return F.cross_entropy(outputs[0], targets) + 0.3 * F.cross_entropy(outputs[1], targets)


def test_a_model_that_answers_otherwise_in_eval_mode_is_scored_as_it_trains():
    model, _, loader = make_task()
    model = WithAuxiliaryHead(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = cw.lr_find(model, torch.optim.SGD(model.parameters(), lr=0.1), both_heads, loader)
    assert result.max_lr is not None
    assert result.improvement is not None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def attempts(errors):
    """The error that passes, and the modes in which a score that raises these one after the other was asked."""
    model = nn.Dropout()
    modes = []

    def score():
        modes.append(model.training)
        if errors[len(modes) - 1] is not None:
            raise errors[len(modes) - 1]

    scoring = Scoring(model)
    with pytest.raises(ValueError, match="first") as caught:
        scoring.attempt(score)
    assert scoring.attempt(lambda: model.training) is False
    return caught.value, modes


def test_an_error_in_both_modes_or_only_once_passes_unchanged():
    errors = [ValueError("first"), ValueError("second"), ValueError("third")]
    assert attempts(errors) == (errors[0], [False, False, True])
    assert attempts([errors[0], None]) == (errors[0], [False, False])


class OwnTargets:
    """A loss that knows which targets are whose."""

    def __init__(self, loader):
        self.known = {tuple(inputs.tolist()): int(target) for inputs, target in loader.dataset}

    def __call__(self, outputs, targets):
        scores, inputs = outputs[:, :3], outputs[:, 3:]
        if any(self.known[tuple(row.tolist())] != int(target) for row, target in zip(inputs, targets, strict=True)):
            raise ValueError("targets of other samples")
        return F.cross_entropy(scores, targets)


class WithInputs(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return torch.cat([self.model(inputs), inputs], 1)


def test_a_loss_that_takes_no_targets_of_other_samples_is_not_compared():
    model, _, loader = make_task()
    model = WithInputs(model)
    loss_fn = OwnTargets(loader)
    result = cw.lr_find(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, loader)
    assert result.max_lr is not None
    assert result.link is None


COUNTS = []  # what the loss keeps itself is given back


class Annealed(nn.Module):
    """A loss whose weight depends on how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, outputs, targets):
        self.calls += 1
        COUNTS.append(self.calls)
        return F.cross_entropy(outputs, targets)


def test_comparisons_do_not_count_as_calls_of_a_loss_that_counts():
    model, optimizer, loader = make_task()
    COUNTS.clear()
    result = cw.lr_find(model, optimizer, Annealed(), loader)
    assert result.max_lr is not None
    assert max(COUNTS) < 2 * result.num_steps  # comparing alone would make 4 calls at each step of the last sweep


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_batch_without_labelled_samples_at_the_start_is_no_missing_gradient(position):
    def masked(outputs, targets):
        known = targets >= 0
        return F.cross_entropy(outputs[known], targets[known], reduction="sum") / known.sum().clamp_min(1)

    model, optimizer, loader = make_task()
    batches = [(inputs, targets.clone()) for inputs, targets in loader]
    batches[position][1].fill_(-1)
    assert cw.lr_find(model, optimizer, masked, batches).refusal is None
    for _, targets in batches:
        targets.fill_(-1)
    assert cw.lr_find(model, optimizer, masked, batches).refusal is cw.Refusal.ZERO_GRADIENT


def test_of_two_batches_the_short_one_is_held_out():
    inputs = torch.randn(65, 10, generator=torch.Generator().manual_seed(0))
    targets = inputs[:, :3].argmax(1)
    model = nn.Linear(10, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batches in ([64, 1], [1, 64]):
        loader = list(zip(inputs.split(batches), targets.split(batches), strict=True))
        result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
        assert dict(result.settings)["batch_size"] == 64


class RootOfZero(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + (0.0 * self.weight).square().sum().sqrt()


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu")])
def test_a_gradient_that_is_not_a_number_is_refused(scaler):
    loader = make_task()[2]
    model = RootOfZero(10, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = cw.lr_find(
        model, optimizer, F.cross_entropy, loader, scaler=scaler, autocast_dtype=scaler and torch.bfloat16
    )
    assert result.refusal is cw.Refusal.NONFINITE_START


@pytest.mark.parametrize("end_lr", [1e-3, 1e-2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_bound_far_below_the_rate_gives_no_rate(end_lr, seed):
    model, _, loader = make_task(num_samples=1280)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, end_lr=end_lr, seed=seed)
    assert result.refusal in (cw.Refusal.STILL_FALLING, cw.Refusal.NO_IMPROVEMENT)


@pytest.mark.parametrize("kind", ["binary", "multi-label", "one-hot"])
def test_zeros_and_ones_are_labels_whatever_their_kind(kind):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1280, 10, generator=generator)
    shape = (1280, 1 if kind == "binary" else 3)
    targets = (torch.rand(shape, generator=generator) < 0.05).float()
    loss_fn = F.binary_cross_entropy_with_logits
    if kind == "one-hot":
        labels = torch.multinomial(torch.tensor([0.9, 0.06, 0.04]), 1280, replacement=True, generator=generator)
        targets, loss_fn, shape = F.one_hot(labels, 3).float(), F.cross_entropy, (1280, 3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, shape[1]))
    loader = DataLoader(TensorDataset(inputs, targets), 32, shuffle=True, generator=generator)
    result = cw.lr_find(model, torch.optim.AdamW(model.parameters()), loss_fn, loader)
    assert result.refusal in (cw.Refusal.UNRELATED, cw.Refusal.NO_IMPROVEMENT)
