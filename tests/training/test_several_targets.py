"""Targets as a tuple or dict of arrays: split, shuffled, trained on and resumed like one array; sparse ones refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from tests.training.cut_off import DieAt, Dies

N = 50
INPUTS = torch.arange(float(N))[:, None]
AS_TUPLE = (torch.arange(N) % 2, (2 * torch.arange(float(N))[:, None], torch.arange(N)))
AS_DICT = {"is_odd": torch.arange(N) % 2, "double": 2 * torch.arange(float(N))[:, None]}


def flat(targets):
    if isinstance(targets, (tuple, dict)):
        return [part for item in (targets.values() if isinstance(targets, dict) else targets) for part in flat(item)]
    return [targets]


@pytest.mark.parametrize("targets", [AS_TUPLE, AS_DICT])
def test_every_part_goes_with_its_inputs_in_the_order_of_one_array(targets):
    data = cw.Data.from_arrays(INPUTS, targets, valid_fraction=0.2, batch_size=16, seed=3)
    alone = cw.Data.from_arrays(INPUTS, torch.arange(N), valid_fraction=0.2, batch_size=16, seed=3)
    for loader, other in ((data.train_loader, alone.train_loader), (data.valid_loader, alone.valid_loader)):
        assert len(loader) == len(other)
        for _ in range(2):
            for (inputs, batch), (expected, numbers) in zip(loader, other, strict=True):
                assert torch.equal(inputs, expected)
                assert type(batch) is type(targets)
                assert all(torch.equal(part, whole[numbers]) for part, whole in zip(flat(batch), flat(targets),
                                                                                    strict=True))  # fmt: skip


@pytest.mark.parametrize("targets", [AS_TUPLE, AS_DICT])
def test_ranks_share_them(targets):
    loader = cw.Data.from_arrays(INPUTS, targets, valid_fraction=0.0, batch_size=8).train_loader
    shares = [list(loader.shard(rank, 2, is_even=False)) for rank in range(2)]
    seen = [flat(batch)[1] for share in shares for _, batch in share]
    assert sorted(torch.cat(seen)[:, 0].tolist()) == [2.0 * i for i in range(N)]


def test_a_checksum_looks_at_every_part():
    def fingerprint(targets):
        return cw.Data.from_arrays(INPUTS, targets).train_loader.fingerprint()

    assert fingerprint(AS_DICT) == fingerprint(dict(AS_DICT))
    assert fingerprint(AS_DICT) != fingerprint({**AS_DICT, "double": AS_DICT["double"] + 1})
    assert fingerprint(AS_TUPLE) != fingerprint(AS_TUPLE[::-1])


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.classes, self.value = nn.Linear(1, 2), nn.Linear(1, 1)

    def forward(self, inputs):
        return self.classes(inputs), self.value(inputs)


def make_learner():
    def loss_fn(outputs, targets):
        return F.cross_entropy(outputs[0], targets["is_odd"]) + F.mse_loss(outputs[1], targets["double"])

    torch.manual_seed(0)
    data = cw.Data.from_arrays(INPUTS / N, {**AS_DICT, "double": AS_DICT["double"] / N}, batch_size=16)
    metrics = {"accuracy": lambda outputs, targets: cw.accuracy(outputs[0], targets["is_odd"])}
    return cw.Learner(TwoHeads(), data, loss_fn=loss_fn, metrics=metrics, progress=False)


def test_a_model_with_two_heads_is_trained_and_resumed_with_the_same_bits(tmp_path):
    policy = cw.Constant(lr=0.05, total_steps=9)

    def fit(learn, directory, death=None):
        learn.fit(policy, callbacks=[DieAt(death), cw.Checkpoint(directory, every_steps=2)])
        return learn

    whole = fit(make_learner(), tmp_path / "whole")
    losses = [epoch.train_loss for epoch in whole.history.epochs]
    assert losses[-1] < losses[0]
    assert set(whole.evaluate()) == {"loss", "accuracy"}
    with pytest.raises(Dies):
        fit(make_learner(), tmp_path / "cut", 5)
    later = make_learner()
    assert later.resume(tmp_path / "cut") == 4
    fit(later, tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(later.model.parameters(), whole.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (INPUTS, (torch.zeros(3), {"a": torch.zeros(4)}),
         "targets must all have the same number of samples, got [3, 4]; the first dimension counts the samples"),
        (INPUTS, {"a": torch.zeros(3)},
         "inputs must have as many samples as targets, got 50 and 3; the first dimension counts the samples"),
        (torch.eye(N).to_sparse(), AS_DICT,
         "inputs must be dense, got a tensor of layout torch.sparse_coo; pass inputs.to_dense(), or batches that your "
         "own loader makes dense"),
        (INPUTS, (AS_TUPLE[0], torch.eye(N).to_sparse()),
         "targets[1] must be dense, got a tensor of layout torch.sparse_coo; pass targets[1].to_dense(), or batches "
         "that your own loader makes dense"),
    ],
)  # fmt: skip
def test_impossible_arrays_are_refused(inputs, targets, message):
    with pytest.raises(cw.ArgumentError) as caught:
        cw.Data.from_arrays(inputs, targets)
    assert str(caught.value) == message
