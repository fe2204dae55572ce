"""The main job on real data: a small convolutional net on scikit-learn's 1,797 digits (8 x 8 pixels, 10 classes).

The rate comes from one range test; one-cycle at that rate is then held against the best constant rate of a grid, with
the same number of steps, on the same seeds (of the weights, the split and the order).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cyclewise.errors import DivergedError, MissingExtraError
from cyclewise.experiments.contest import Contest, Entry
from cyclewise.policies import Constant
from cyclewise.range_test import RangeTest
from cyclewise.state import preserve, seed_everything
from cyclewise.training import Data, History, Learner, accuracy

# Half a decade apart, from one that hardly learns to one that fails, so that the best lies inside.
CONSTANT_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
NUM_EPOCHS = 8


def digits_learner(seed: int) -> Learner:
    """Return an untrained Learner on the digits: SGD with momentum 0.9, batches of 64, a fifth held out.

    Args:
        seed: draws the weights, the split and the order of the batches.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError.for_extra("demo", "scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    data = Data.from_arrays(inputs, torch.tensor(labels), batch_size=64, seed=seed)
    with preserve():
        seed_everything(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Learner(model, data, optimizer=optimizer, metrics={"accuracy": accuracy}, progress=False)


def digits_contest(
    range_test: RangeTest,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    on_run: Callable[[str], None] = lambda name: None,
) -> Contest:
    """Train with one-cycle at the range test's rate, and with every constant rate of the grid.

    Args:
        range_test: where the peak rate comes from.
        seeds: one run of each policy per seed.
        on_run: called with the policy's name after each run.

    Raises:
        SuggestionError: the range test refused to give a rate.
        MissingExtraError: scikit-learn is not installed.
    """
    peak = range_test.policy(1).max_lr

    def run(name: str, lr: float, fit: Callable[[Learner], History]) -> Entry:
        histories: list[History | None] = []
        for seed in seeds:
            try:
                histories.append(fit(digits_learner(seed)))
            except DivergedError:
                histories.append(None)
            on_run(name)
        return Entry(name, lr, tuple(histories))

    def constant(learn: Learner, lr: float) -> History:
        return learn.fit(Constant(lr=lr, total_steps=NUM_EPOCHS * learn.data.steps_per_epoch))

    one_cycle = run("one-cycle", peak, lambda learn: learn.fit_one_cycle(NUM_EPOCHS, max_lr=peak))
    grid = [
        run(f"constant {lr:g}", lr, lambda learn, lr=lr: constant(learn, lr))  # type: ignore[misc]
        for lr in CONSTANT_RATES
    ]
    best = max(grid, key=_accuracy)
    baseline = Entry("best constant rate", best.lr, best.histories)
    num_parameters = sum(parameter.numel() for parameter in digits_learner(0).model.parameters())
    settings: dict[str, Any] = {
        "data": "scikit-learn's digits (1,797 images of 8 x 8), a fifth held out",
        "network": f"two convolutions and two linear layers, {num_parameters:,} parameters",
        "optimizer": "SGD with momentum 0.9, batches of 64",
        "one-cycle": f"max_lr {peak:.4g}, momentum 0.95 to 0.85, {NUM_EPOCHS} epochs",
        "constant rates": ", ".join(f"{lr:g}" for lr in CONSTANT_RATES),
        "seeds": ", ".join(str(seed) for seed in seeds),
    }
    return Contest(
        challenger=one_cycle,
        baseline=baseline,
        grid=tuple(baseline if entry is best else entry for entry in grid),
        seeds=tuple(seeds),
        setting=tuple(settings.items()),
    )


def _accuracy(entry: Entry) -> float:
    return -1.0 if entry.num_diverged else entry.mean("accuracy")
