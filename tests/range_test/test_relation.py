"""Whether targets have to do with inputs, by the data alone, and whom that saves from a refusal."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test import doubt, relation
from cyclewise.range_test.relation import are_related


def data_of(kind, seed, *, num=120):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, 3, generator=generator)
    tokens = torch.randint(20, (num, 6), generator=generator)
    return {
        "labels": (1e6 * inputs + 5.0, (inputs[:, 0] + inputs[:, 1] > 0).long()),
        "a circle": (inputs, inputs.square().sum(1)),
        "several inputs": (inputs[:, 0], inputs[:, 1:], inputs.sum(1, keepdim=True)),
        "tokens": (tokens, tokens.roll(1, 1)),
        "half precision": (inputs.bfloat16(), inputs[:, 0].half()),
        "images": (inputs[:, :, None, None].expand(num, 3, 40, 40), (inputs[:, 2] > 0).int()),
    }[kind]


KINDS = ["labels", "a circle", "several inputs", "tokens", "half precision", "images"]


def in_batches(tensors, size=16):
    return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_targets_made_of_the_inputs_are_related(kind, seed):
    assert are_related(in_batches(data_of(kind, seed)), seed=seed) is True


@pytest.mark.parametrize("kind", KINDS)
def test_exchanged_targets_are_related_in_one_of_200_cases(kind):
    found = 0
    for seed in range(8):
        *inputs, targets = data_of(kind, seed)
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        found += are_related(in_batches((*inputs, targets[order])), seed=seed)
    # Of 8, more than one happens by chance in one of 1,400 tries.
    assert found <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_samples_some_are_compared(kind, monkeypatch):
    compared = []
    distances = relation._distances
    monkeypatch.setattr(relation, "_distances", lambda rows: compared.append(len(rows)) or distances(rows))
    assert are_related(in_batches(data_of(kind, 0, num=8000), size=500), seed=0) is True
    assert len(compared) == 2
    assert set(compared) <= (set(range(200, 251)) if kind == "images" else set(range(800, 1001)))


def test_names_of_which_few_are_alike_are_related():
    generator = torch.Generator().manual_seed(0)
    names = torch.randint(100, (1600, 2), generator=generator)
    likes = torch.randn(100, 100, generator=generator)[names[:, 0] // 25, names[:, 1] // 25] > 0
    clicks = (torch.rand(1600, generator=generator) < 0.2 + 0.6 * likes).float()
    assert are_related(in_batches((names, clicks)), seed=0) is True
    assert not are_related(in_batches((names, clicks.roll(7))), seed=0)


def test_samples_drawn_again_and_again_do_not_make_unrelated_targets_related():
    inputs, targets = torch.randn(60, 3), torch.randint(2, (60,))
    again = torch.randint(60, (600,))
    assert not are_related(in_batches((inputs[again], targets[again])), seed=0)


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [torch.randn(40, 2)],
        [{"x": torch.randn(40, 2), "y": torch.randn(40)}],
        [(torch.randn(19, 2), torch.randn(19))],
        [(torch.zeros(40, 2), torch.randn(40))],
        [(torch.randn(40, 2), torch.tensor(1.0))],
        [(torch.randn(40, 2), ["a"] * 40)],
        [(torch.randn(40, 2), torch.randn(40)), (torch.randn(40, 3), torch.randn(40))],
        [(torch.randn(0, 2), torch.randn(0))],
        [(torch.randn(40, 2).to_sparse(), torch.randn(40))],
    ],
    ids=["none", "tensors", "dicts", "few", "one input", "a scalar", "names", "of two widths", "empty", "sparse"],
)
def test_batches_that_cannot_tell_give_none(batches):
    assert are_related(batches, seed=0) is None


@pytest.mark.parametrize("targets", ["labels", "quantities"])
def test_the_covariance_is_that_of_its_definition(targets):
    """Székely & Rizzo's V-statistic, element by element."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((12, 2))
    others = generator.integers(3, size=(12, 1)) if targets == "labels" else generator.standard_normal((12, 1))

    def far(x, y):
        return float(np.sqrt(((x - y) ** 2).sum()))

    def by_definition(values, far):
        n = len(values)
        pairs = [[far(x, y) for y in values] for x in values]
        rows = [sum(row) / n for row in pairs]
        mean = sum(rows) / n
        return [[pairs[i][j] - rows[i] - rows[j] + mean for j in range(n)] for i in range(n)]

    def scaled(values):
        return (values - values.mean(0)) / values.std(0)

    a = by_definition(scaled(inputs), far)
    if targets == "labels":
        b = by_definition(others, lambda x, y: float(x[0] != y[0]))
    else:
        b = by_definition(scaled(others), far)
    expected = sum(a[i][j] * b[i][j] for i in range(12) for j in range(12))
    ours = np.vdot(*(relation._centred(relation._distances(values)) for values in (inputs, others)))
    assert ours == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def only_shares_learned(monkeypatch):
    """The sweeps learn nothing that links targets to inputs, as happens with raw features now and then."""
    monkeypatch.setattr(doubt, "link", lambda seen: 1.0)


def raw_wine(seed, *, shuffled):
    torch.manual_seed(seed)
    inputs, labels = (torch.tensor(values) for values in load_wine(return_X_y=True))
    labels = labels[torch.randperm(len(labels))] if shuffled else labels
    loader = DataLoader(TensorDataset(inputs.float(), labels), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
    return cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, loader, seed=seed)


@pytest.mark.usefixtures("only_shares_learned")
@pytest.mark.parametrize("seed", range(2))
def test_where_the_sweeps_learn_only_the_shares_of_the_classes_the_data_decide(seed):
    found, refused = (raw_wine(seed, shuffled=shuffled) for shuffled in (False, True))
    assert found.related is True
    assert found.max_lr is not None
    assert "The data link the targets to the inputs" in found.section().conclusion
    assert cw.RangeTest.from_dict(found.to_dict()) == found
    assert refused.related is False
    assert refused.refusal in (cw.Refusal.UNRELATED, cw.Refusal.NO_IMPROVEMENT)


def test_where_the_sweeps_have_shown_a_link_the_data_are_not_asked():
    inputs = torch.randn(640, 10)
    loader = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
    result = cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, loader)
    assert result.max_lr is not None
    assert result.related is None
