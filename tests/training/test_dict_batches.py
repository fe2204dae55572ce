"""Batches that are dicts: what metrics get of them, and what is said where a metric cannot take it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0).long()
BATCHES = [{"x": x, "labels": y} for x, y in zip(INPUTS.split(16), CLASSES.split(16), strict=True)]
WAY_OUT = (
    "where batches are dicts, metrics get the model's output and the whole batch: take what they need out of them, for "
    'example lambda o, t: cyclewise.accuracy(o.logits, t["labels"])'
)
STEPS = cw.Constant(lr=0.1, total_steps=8)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x, labels):
        logits = self.linear(x)
        return SimpleNamespace(logits=logits, loss=F.cross_entropy(logits, labels))


def make_learner(metrics, valid=BATCHES, **options):
    torch.manual_seed(0)
    return cw.Learner(Model(), cw.Data(BATCHES, valid), metrics=metrics, progress=False, **options)


@pytest.mark.parametrize("options", [{}, {"accumulation_steps": 2}])
def test_accuracy_as_it_is_is_refused_before_the_first_update(options):
    learn = make_learner([cw.accuracy], **options)
    before = learn.model.linear.weight.detach().clone()
    with pytest.raises(cw.ArgumentError) as caught:
        learn.fit(STEPS)
    assert str(caught.value) == (
        "metrics must not hold accuracy as it is where batches are dicts, got it and a batch of ['x', 'labels']; "
        + WAY_OUT
    )
    assert torch.equal(learn.model.linear.weight, before)
    assert learn.num_steps == 0


def test_accuracy_says_what_it_got():
    with pytest.raises(cw.ArgumentError) as caught:
        make_learner([cw.accuracy]).evaluate()
    assert str(caught.value) == (
        "outputs must be scores [N, C] and targets class indices [N] for accuracy, got outputs of the type "
        "SimpleNamespace and targets of the type dict; " + WAY_OUT
    )


def test_the_way_out_is_one():
    learn = make_learner({"accuracy": lambda o, t: cw.accuracy(o.logits, t["labels"])})
    assert learn.fit(STEPS).epochs[-1].metrics["accuracy"] > 0.5


def test_where_nothing_is_scored_nothing_is_refused():
    assert make_learner([cw.accuracy], valid=None).fit(STEPS).num_steps == 8


def test_another_metric_that_fails_is_told_what_it_got():
    learn = make_learner({"own": lambda o, t: (o.argmax(1) == t).float().mean()})
    with pytest.raises(AttributeError) as caught:
        learn.fit(STEPS)
    if hasattr(caught.value, "__notes__"):  # Python 3.10 has no notes
        assert caught.value.__notes__ == [
            f"raised by metrics['own'] for outputs SimpleNamespace and targets dict; {WAY_OUT}"
        ]


def test_a_list_of_other_batches_for_validation_is_scored():
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x, labels=None):
            return self.linear(x)

    def loss_fn(outputs, targets):
        return F.cross_entropy(outputs, targets["labels"] if isinstance(targets, dict) else targets)

    valid = [(batch["x"], batch["labels"]) for batch in BATCHES]
    learn = cw.Learner(Logits(), cw.Data(BATCHES, valid), loss_fn=loss_fn, metrics=[cw.accuracy], progress=False)
    assert learn.fit(STEPS).epochs[-1].metrics["accuracy"] > 0.5
