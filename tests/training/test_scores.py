"""Scores over batches of unequal size: each sample counts the same, whatever form the targets have."""

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.training.ensemble import Ensemble


class F1:
    """F1 of class 1 over all batches; it cannot be called."""

    def reset(self):
        self.hits = self.wrong = 0

    def update(self, outputs, targets):
        said = outputs.argmax(1)
        self.hits += int(((said == 1) & (targets == 1)).sum())
        self.wrong += int((said != targets).sum())

    def compute(self):
        return 2 * self.hits / (2 * self.hits + self.wrong)


def two_batches(make_targets, sizes=(8, 1)):
    """Batches of 8 zeros and of a single 3."""
    return [(torch.full((size, 1), value), make_targets(size)) for size, value in zip(sizes, (0.0, 3.0), strict=True)]


@pytest.mark.parametrize(
    ("make_targets", "first"),
    [
        (lambda size: torch.zeros(size, 1), lambda t: t),
        (lambda size: (torch.zeros(size, 1), torch.zeros(size, 4)), lambda t: t[0]),
        (lambda size: [torch.zeros(size, 1), torch.zeros(size)], lambda t: t[0]),
        (lambda size: {"a": torch.zeros(size, 1), "b": torch.zeros(size)}, lambda t: t["a"]),
        (lambda size: [torch.zeros(5, 4) for _ in range(size)], lambda t: torch.zeros(len(t), 1)),  # boxes per sample
        (lambda size: ["text"] * size, lambda t: torch.zeros(len(t), 1)),
        (lambda size: torch.tensor(0.0), lambda t: t),
    ],
)
def test_scores_are_means_over_samples(make_targets, first):
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    batches = two_batches(make_targets)
    learn = cw.Learner(
        model,
        cw.Data(batches, batches),
        loss_fn=lambda outputs, targets: (outputs - first(targets)).square().mean(),
        metrics={"mean": lambda outputs, targets: float(outputs.mean())},
        progress=False,
    )
    assert learn.evaluate() == pytest.approx({"loss": 9.0 / 9, "mean": 3.0 / 9})


def test_an_ensemble_of_one_scores_streaming_metrics_as_the_learner_does():
    torch.manual_seed(0)
    inputs = torch.randn(50, 3)
    targets = (inputs[:, 0] > 0.8).long()
    batches = list(zip(inputs.split(7), targets.split(7), strict=True))
    model = nn.Linear(3, 2)
    data = cw.Data(batches, batches)
    metrics = {"f1": F1(), "accuracy": cw.accuracy}
    learn = cw.Learner(model, data, loss_fn=nn.functional.cross_entropy, metrics=metrics, progress=False)
    ensemble = Ensemble(model, [model.state_dict()], data, metrics=metrics, progress=False)
    alone, together = learn.evaluate(), ensemble.evaluate()
    assert {name: together[name] for name in alone} == pytest.approx(alone)
    assert list(together)[:3] == ["loss", "f1", "accuracy"]
    assert ensemble.members()[0]["f1"] == together["f1"]


class Output:
    def __init__(self, logits):
        self.logits = logits


class OfDicts(nn.Module):
    """Takes the items of a dict batch, and returns what a Hugging Face model does."""

    def __init__(self, num_outputs):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, num_outputs)

    def forward(self, x, labels=None):
        return Output(self.linear(x))


def test_an_ensemble_of_a_learner_gives_metrics_what_the_learner_does_of_dicts():
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    batches = [{"x": x, "labels": y} for x, y in zip(inputs.split(8), (inputs[:, 0] > 0).long().split(8), strict=True)]
    learn = cw.Learner(
        OfDicts(2),
        cw.Data(batches, batches),
        loss_fn=lambda output, batch: nn.functional.cross_entropy(output.logits, batch["labels"]),
        metrics={"accuracy": lambda o, t: cw.accuracy(o.logits, t["labels"])},
        progress=False,
    )
    learn.fit_sgdr(T_0=1, num_cycles=2, max_lr=0.1, snapshots=True)
    alone, last = learn.evaluate(), learn.ensemble().last(1).evaluate()
    assert {name: last[name] for name in alone} == pytest.approx(alone)
    own = Ensemble(learn.model, learn.snapshots.states, learn.data, metrics={"accuracy": cw.accuracy}, progress=False)
    assert own.last(1).evaluate()["accuracy"] == pytest.approx(alone["accuracy"])


def test_an_ensemble_of_a_learner_is_scored_by_a_loss_of_whole_batches():
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    batches = [{"x": x} for x in inputs.split(8)]
    learn = cw.Learner(
        OfDicts(3),
        cw.Data(batches, batches),
        loss_fn=lambda output, batch: nn.functional.mse_loss(output.logits, batch["x"]),
        progress=False,
    )
    learn.fit_sgdr(T_0=1, num_cycles=2, max_lr=0.1, snapshots=True)
    assert learn.ensemble().last(1).evaluate() == pytest.approx(learn.evaluate())


def test_of_an_average_only_the_logits_are_known():
    batches = [{"x": torch.ones(4, 3), "labels": torch.zeros(4).long()}]
    model = OfDicts(2)
    ensemble = Ensemble(model, [model.state_dict()], cw.Data(batches, batches), takes_dicts=True, progress=False,
                        metrics={"loss of the model": lambda output, batch: output.loss})  # fmt: skip
    with pytest.raises(AttributeError, match="the average over an ensemble has logits and no 'loss'"):
        ensemble.evaluate()


class EnergyAndForces(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        energy = self.net(x)
        return energy, torch.autograd.grad(energy.sum(), x, create_graph=True)[0]


def test_predictions_of_a_model_that_takes_derivatives_keep_no_graph():
    inputs = torch.randn(8, 3)
    batches = [(inputs, (torch.zeros(8, 1), torch.zeros(8, 3)))]
    seen = []
    learn = cw.Learner(
        EnergyAndForces(),
        cw.Data(batches, batches),
        loss_fn=lambda outputs, targets: nn.functional.mse_loss(outputs[0], targets[0]),
        metrics={"energy": lambda outputs, targets: seen.append(outputs) or float(outputs[0].mean())},
        progress=False,
    )
    energy, forces = learn.predict(inputs)
    assert (energy.requires_grad, forces.requires_grad) == (False, False)
    learn.evaluate()
    assert not any(part.requires_grad for part in seen[0])
