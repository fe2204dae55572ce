"""A snapshot ensemble against a single model of equal budget: accuracy, loss and calibration on digits.

    OMP_NUM_THREADS=1 python benchmarks/snapshot_ensemble.py [--seeds 10]

A perceptron on scikit-learn's digits with 20 % of the training labels replaced at random, so that confidence matters;
60 epochs in all. Single models: half a cosine over all 60 epochs, and the last snapshot of SGDR with five cycles of 12
epochs. The ensembles: all five snapshots of that SGDR run, and its last three. The peak rate is that of a range test,
the same for all of a seed.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import cyclewise as cw

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

EPOCHS, CYCLES = 60, 5


def make_learner(seed: int) -> cw.Learner:
    """Return the task: noisy labels for training, true ones for validation."""
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(inputs), generator=generator)
    train, valid = order[:1200], order[1200:]
    noisy = targets[train].clone()
    wrong = torch.rand(len(train), generator=generator) < 0.2
    noisy[wrong] = torch.randint(0, 10, (int(wrong.sum()),), generator=generator)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    batches = cw.Data.from_arrays(inputs[train], noisy, valid_fraction=0.0, batch_size=64, seed=seed).train_loader
    held_out = cw.Data.from_arrays(inputs[valid], targets[valid], valid_fraction=0.0, batch_size=200).train_loader
    return cw.Learner(model, cw.Data(batches, held_out), metrics={"accuracy": cw.accuracy}, progress=False)


def scores(learn: cw.Learner) -> dict[str, float]:
    """Return a single model's scores, with its calibration error."""
    loader = list(learn.data.valid_loader)
    outputs, targets = learn.predict(loader), torch.cat([targets for _, targets in loader])
    return {**learn.evaluate(), "calibration_error": cw.calibration_error(outputs.softmax(1), targets)}


def measure(seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of all contenders with one seed."""
    single = make_learner(seed)
    found = single.lr_find()
    max_lr = 0.05 if found.max_lr is None else found.max_lr
    single.fit(cw.Cosine(max_lr=max_lr, total_steps=EPOCHS * single.data.steps_per_epoch))
    cycles = make_learner(seed)
    cycles.fit_sgdr(T_0=EPOCHS // CYCLES, num_cycles=CYCLES, max_lr=max_lr, snapshots=True)
    ensemble = cycles.ensemble()
    return {
        "half a cosine": scores(single),
        "SGDR, last snapshot": scores(cycles),
        "SGDR, last three snapshots": ensemble.last(3).evaluate(),
        "SGDR, five snapshots": ensemble.evaluate(),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = [measure(seed) for seed in range(arguments.seeds)]
    for name in runs[0]:
        parts = []
        for score in ("accuracy", "loss", "calibration_error"):
            values = [run[name][score] for run in runs]
            error = statistics.stdev(values) / len(values) ** 0.5
            parts.append(f"{score} {statistics.mean(values):.4f} ± {error:.4f}")
        print(f"{name:28}" + "   ".join(parts) + f"   standard error, n={len(runs)}")
    record("snapshot_ensemble", {"runs": runs})


if __name__ == "__main__":
    main()
