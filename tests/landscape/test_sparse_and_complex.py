"""Sparse gradients are measured as dense ones; complex parameters are refused by name, or left out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

WORDS = torch.randint(12, (64, 5), generator=torch.Generator().manual_seed(0))
CLASSES = (WORDS[:, 0] > 5).long()
BATCHES = list(zip(WORDS.split(32), CLASSES.split(32), strict=True))
REFUSAL = (
    "model must have real parameters where its landscape is measured, got 'mix' of torch.complex64; keep its two parts "
    "in a real parameter of one dimension more, and call torch.view_as_complex on it in forward(); or leave it out of "
    "the measurement: requires_grad_(False)"
)


class ByHand(nn.Module):
    """Asks for sparse gradients where no layer says so."""

    def __init__(self, is_sparse):
        super().__init__()
        self.is_sparse = is_sparse
        self.weight = nn.Parameter(torch.randn(12, 3))

    def forward(self, words):
        return F.embedding(words, self.weight, sparse=self.is_sparse)


def embedding(is_sparse):
    return nn.Sequential(nn.Embedding(12, 3, sparse=is_sparse), nn.Flatten(), nn.Linear(15, 2))


def bag(is_sparse):
    return nn.Sequential(nn.EmbeddingBag(12, 3, sparse=is_sparse), nn.Linear(3, 2))


def by_hand(is_sparse):
    return nn.Sequential(ByHand(is_sparse), nn.Flatten(), nn.Linear(15, 2))


@pytest.mark.parametrize("make", [embedding, bag, by_hand])
def test_a_sparse_gradient_is_measured_as_a_dense_one(make):
    found = []
    for is_sparse in (True, False):
        torch.manual_seed(0)
        model = make(is_sparse)
        found.append(
            cw.diagnose(model, F.cross_entropy, BATCHES, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        )
        loss = F.cross_entropy(model(WORDS), CLASSES)
        loss.backward()
        assert next(model.parameters()).grad.is_sparse is is_sparse  # as its owner left it
    sparse, dense = found
    assert sparse.unavailable.keys() - {"plane"} == dense.unavailable.keys() - {"plane"}  # costs more by hand
    assert ("sharpness" in dense.unavailable) is (make is bag)  # torch has no second derivative of it, dense or not
    for name in ("gradient_norm", "noise_scale") if make is bag else ("gradient_norm", "stability_limit", "best_step"):
        assert getattr(sparse, name) == pytest.approx(getattr(dense, name), rel=1e-4)
    if make is not bag:
        assert sparse.sharpness.value == pytest.approx(dense.sharpness.value, rel=1e-3)
        assert sparse.own_step.actual == pytest.approx(dense.own_step.actual, rel=1e-2)


def test_momentum_that_has_summed_up_sparse_gradients_is_given_another_one():
    found = []
    for is_sparse in (True, False):
        torch.manual_seed(0)
        model = embedding(is_sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for words, classes in BATCHES:
            optimizer.zero_grad()
            F.cross_entropy(model(words), classes).backward()
            optimizer.step()
        assert optimizer.state[model[0].weight]["momentum_buffer"].is_sparse is is_sparse
        found.append(cw.diagnose(model, F.cross_entropy, BATCHES, optimizer=optimizer))
        assert optimizer.state[model[0].weight]["momentum_buffer"].is_sparse is is_sparse  # as its owner left it
    sparse, dense = found
    assert sparse.own_step.actual == pytest.approx(dense.own_step.actual, rel=1e-2)


def test_an_optimizer_for_sparse_gradients_alone():
    torch.manual_seed(0)
    model = embedding(True)
    model[2].requires_grad_(False)
    optimizer = torch.optim.SparseAdam([model[0].weight], lr=0.01)
    for words, classes in BATCHES:
        optimizer.zero_grad()
        F.cross_entropy(model(words), classes).backward()
        optimizer.step()
    diagnosis = cw.diagnose(model, F.cross_entropy, BATCHES, optimizer=optimizer)
    assert diagnosis.own_step.actual == pytest.approx(diagnosis.own_step.predicted, rel=0.05)


def test_a_learner_s_sparse_model_is_diagnosed_and_watched():
    torch.manual_seed(0)
    model = embedding(True)
    data = cw.Data.from_arrays(WORDS, CLASSES, batch_size=16)
    learn = cw.Learner(model, data, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), progress=False)
    watch = cw.Watch(every=1, noise_every=2, sharpness_every=2)
    learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[watch])
    assert learn.history.watched.unavailable == ()
    assert learn.diagnose().sharpness.value > 0


class Complex(nn.Module):
    """Mixes inputs by a complex matrix, or by its parts in a real one."""

    def __init__(self, in_parts):
        super().__init__()
        mix = torch.randn(4, 8, dtype=torch.complex64)
        self.mix = nn.Parameter(torch.view_as_real(mix).clone() if in_parts else mix)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs):
        mix = self.mix if self.mix.is_complex() else torch.view_as_complex(self.mix)
        return self.head((inputs.to(torch.complex64) @ mix).abs())


def complex_learner(in_parts=False):
    torch.manual_seed(0)
    inputs = torch.randn(64, 4)
    model = Complex(in_parts)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=16)
    return cw.Learner(model, data, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), progress=False)


def test_a_complex_parameter_is_refused_by_name_or_left_out():
    learn = complex_learner()
    with pytest.raises(cw.ArgumentError) as caught:
        learn.diagnose()
    assert str(caught.value) == REFUSAL
    assert complex_learner(in_parts=True).diagnose().sharpness.value > 0
    learn.model.mix.requires_grad_(False)
    assert learn.diagnose().sharpness.value > 0


def test_the_watch_of_a_complex_model_measures_what_it_can():
    watched = []
    for in_parts in (False, True):
        learn = complex_learner(in_parts)
        learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[cw.Watch(every=1, noise_every=2, sharpness_every=2)])
        watched.append(learn.history.watched)
    as_it_is, parts = watched
    assert dict(as_it_is.details)["sharpness"] == REFUSAL
    for name in ("gradient_norm", "update_ratio", "noise_scale"):
        assert getattr(as_it_is, name) == pytest.approx(getattr(parts, name), rel=1e-4, nan_ok=True)
