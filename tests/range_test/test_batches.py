"""What the range test does with the batches it is given: loaders of every length and kind, batches of every form."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import cyclewise as cw
from cyclewise.range_test.scoring import Scoring
from cyclewise.range_test.trial import Trial
from cyclewise.state import preserve
from tests.range_test.tasks import make_task


def test_held_out_losses_can_be_read():
    model, optimizer, loader = make_task()
    held_out = [(torch.randn(64, 10), torch.zeros(64, dtype=torch.long))]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, valid_loader=held_out)
    assert result.num_evaluations >= result.num_steps
    # No update has been made before the first one: eval mode, but batch norm by the batch, whose statistics don't lag.
    with Scoring(model).block(), preserve(model):
        assert result.curve.loss[0] == F.cross_entropy(model(held_out[0][0]), held_out[0][1]).item()


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            x = torch.randn(10)
            yield x, x[:3].argmax()


def test_short_endless_and_plain_loaders():
    model, optimizer, loader = make_task()
    short = [next(iter(loader))]
    endless = DataLoader(Endless(), batch_size=32)
    for any_loader in (short, endless):
        assert cw.lr_find(model, optimizer, F.cross_entropy, any_loader).max_lr is not None


def test_accumulation_counts_updates():
    model, optimizer, loader = make_task()
    passes, updates = [], []
    model.register_forward_hook(lambda module, *_: passes.append(module.training))
    step = optimizer.step
    optimizer.step = lambda: (updates.append(1), step())[1]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, accumulation_steps=4, num_steps=20, end_lr=0.5)
    assert (result.num_steps, len(updates), sum(passes)) == (20, 20, 80)


def test_a_one_shot_iterator_is_refused_unread():
    model, optimizer, loader = make_task()
    generator = (batch for batch in loader)
    with pytest.raises(cw.ArgumentTypeError, match="got the one-shot iterator generator"):
        cw.lr_find(model, optimizer, F.cross_entropy, generator)
    assert len(list(generator)) == len(loader)


def test_sparse_gradients_are_fine():
    model = nn.Sequential(nn.EmbeddingBag(50, 8, sparse=True), nn.Linear(8, 3))
    words = torch.randint(0, 50, (640, 1))
    batches = [(part, part[:, 0] % 3) for part in words.split(32)]
    optimizer = torch.optim.SparseAdam(list(model[0].parameters()), lr=0.01)
    before = model[0].weight.detach().clone()
    assert cw.lr_find(model, optimizer, F.cross_entropy, batches).max_lr is not None
    assert torch.equal(model[0].weight, before)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 16), nn.Linear(5, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, left, right, labels=None):
        outputs = self.head(torch.relu(self.left(left) + self.right(right)))
        return {"loss": F.cross_entropy(outputs, labels)} if labels is not None else outputs


def test_several_inputs_and_dict_batches():
    torch.manual_seed(0)
    inputs = torch.randn(960, 10)
    labels = (inputs @ torch.randn(10, 3)).argmax(1)
    model = TwoInputs()
    optimizer = torch.optim.AdamW(model.parameters())
    parts = list(zip(inputs.split(32), labels.split(32), strict=True))
    by_tuple = cw.lr_find(model, optimizer, F.cross_entropy, [(x[:, :5], x[:, 5:], y) for x, y in parts])
    by_dict = cw.lr_find(model, optimizer, None, [{"left": x[:, :5], "right": x[:, 5:], "labels": y} for x, y in parts])
    assert by_tuple.max_lr == pytest.approx(by_dict.max_lr)
    assert by_tuple.link > 5.0
    assert by_dict.link is None


@pytest.mark.parametrize("form", ["tuples", "dicts", "tensors"])
def test_all_training_samples_are_counted_where_one_pass_shows_them(form):
    inputs, targets = torch.randn(70, 4), torch.zeros(70, dtype=torch.long)
    parts = list(zip(inputs.split(16), targets.split(16), strict=True))
    batches = {"tuples": parts, "dicts": [{"x": x, "y": y} for x, y in parts], "tensors": [x for x, _ in parts]}[form]
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with preserve(model, optimizer) as snapshot:
        trial = Trial(model, optimizer, lambda batches: 0.0, None, None, snapshot, 0)
        trial.load(batches, None, 100)
        assert trial.num_samples == 70
        trial.load(batches, None, 3)
        assert trial.num_samples is None
        trial.load([{"x": 1.0}], None, 100)
        assert trial.num_samples is None


def test_on_a_small_table_the_rate_is_one_that_a_whole_run_survives():
    # Three clouds of 45 samples: the sweep learns them by heart, and no rate hurts it any more.
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(180) % 3
    inputs = (torch.randn(3, 13, generator=generator) * 0.8)[labels] + torch.randn(180, 13, generator=generator)
    train, held_out = slice(0, 132), slice(132, 180)
    batches = list(zip(inputs[train].split(16), labels[train].split(16), strict=True))

    def final_loss(rate):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(13, 24), nn.ReLU(), nn.Linear(24, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if rate is None:
            return cw.lr_find(model, optimizer, F.cross_entropy, batches, num_steps=300).max_lr
        scheduler = cw.PolicyLR(optimizer, cw.OneCycle(max_lr=rate, total_steps=153, pct_start=0.25))
        for _ in range(17):
            for x, y in batches:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                scheduler.step()
        return F.cross_entropy(model(inputs[held_out]), labels[held_out]).item()

    suggested = final_loss(None)
    best = min(final_loss(rate) for rate in np.geomspace(3e-3, 0.3, 7))
    start = np.log(3.0)
    assert (final_loss(suggested) - best) / (start - best) < 0.1
