"""A seed is what every generator takes, up to the largest, wherever one can be given."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.experiments.article import run_experiments

LARGEST = 2**63 - 1
MODEL = nn.Linear(3, 2)
BATCHES = [(torch.randn(8, 3), torch.randint(2, (8,)))]


def make_learner(seed):
    torch.manual_seed(seed)
    return cw.Learner(nn.Linear(3, 2), cw.Data(BATCHES, BATCHES), progress=False)


def compared(**options):
    policies = {name: cw.Constant(lr=lr, total_steps=2) for name, lr in (("low", 0.1), ("high", 0.2))}
    options = {"seeds": [0], **options}
    return cw.compare(policies, make_learner, metric="loss", baseline="low", engine="local", **options)


def searched(seed):
    return cw.search_start(
        cw.LayerGains(MODEL), cw.HeldOutLoss(F.cross_entropy, BATCHES), budget=4, seed=seed,
        redraw=lambda seed: nn.Linear(3, 2),
    )  # fmt: skip


DOORS = {
    "lr_find": ("seed", lambda seed: make_learner(0).lr_find(seed=seed, num_steps=10)),
    "diagnose": ("seed", lambda seed: cw.diagnose(MODEL, F.cross_entropy, BATCHES, seed=seed)),
    "Learner.diagnose": ("seed", lambda seed: make_learner(0).diagnose(seed=seed)),
    "from_arrays": ("seed", lambda seed: list(cw.Data.from_arrays(*BATCHES[0], seed=seed).train_loader)),
    "search_start": ("seed", searched),
    "Subspace": ("seed", lambda seed: cw.Subspace(MODEL, 2, seed=seed).stack([{"coordinates": (0.1, 0.2)}])),
    "InitScheme": ("seed", lambda seed: cw.InitScheme(MODEL, seed=seed)),
    "compare": ("seed", lambda seed: compared(seed=seed)),
    "compare's seeds": ("seeds", lambda seed: compared(seeds=[seed])),
}


@pytest.mark.parametrize(("name", "call"), DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("seed", [2**63, 2**64, 2**70 + 5])
def test_a_seed_that_no_generator_takes_is_refused(name, call, seed):
    with pytest.raises(cw.ArgumentError) as caught:
        call(seed)
    assert str(caught.value) == (
        f"{name} must be a whole number from 0 to 2**63 - 1, got {seed}; pass a smaller one, for example {seed % 2**32}"
    )


@pytest.mark.parametrize(("name", "call"), DOORS.values(), ids=DOORS)
def test_the_largest_seed_is_taken(name, call):
    del name
    call(LARGEST)


@pytest.mark.parametrize(("name", "call"), DOORS.values(), ids=DOORS)
def test_a_negative_seed_is_refused(name, call):
    with pytest.raises(cw.ArgumentError, match=f"^{name} must be a whole number of at least 0, got -1; pass "):
        call(-1)


def test_the_articles_experiments_refuse_it_too():
    with pytest.raises(cw.ArgumentError, match=r"^seeds must be a whole number from 0 to "):
        run_experiments([1], small=True, seeds=[2**63])
