"""Two checks of the larger task, on seeds that judge nothing: the form of the cycle, and the edge of the grid.

    OMP_NUM_THREADS=1 python -m benchmarks.super_convergence.checks [--store FOLDER] [--workers 1]

Which form of one-cycle ends highest after 8 and after 3 epochs, at the peak that `lr_find` gives; and whether a
constant rate below the grid of run.py would have been a stronger rival.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch

import cyclewise as cw
from benchmarks.recording import record
from benchmarks.super_convergence.run import EPOCHS, GRID_SEEDS, RANGE_TEST_SEEDS, one_cycle
from benchmarks.super_convergence.task import LARGER, batch_size, make_learner, setting

SEEDS = range(900, 908)
STEPS_PER_EPOCH = LARGER // batch_size(LARGER)
CYCLED = {"base_momentum": 0.85, "max_momentum": 0.95}
FORMS: dict[str, dict[str, Any]] = {
    "cosine": {},
    "linear": {"anneal": "linear"},
    "cosine, a tenth rising": {"pct_start": 0.1},
    "linear, a tenth rising": {"anneal": "linear", "pct_start": 0.1},
    "linear, momentum 0.95 to 0.85": {"anneal": "linear", **CYCLED},
    "linear, a tenth rising, momentum 0.95 to 0.85": {"anneal": "linear", "pct_start": 0.1, **CYCLED},
}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path(__file__).with_name("store"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    common: dict[str, Any] = {
        "make_learner": partial(make_learner, num_train=LARGER), "metric": "accuracy", "store": arguments.store,
        "workers": arguments.workers, "progress": True,
    }  # fmt: skip
    result: dict[str, Any] = {"setting": setting(LARGER), "seeds": list(SEEDS), "constant_seeds": GRID_SEEDS}
    constants = {f"{lr:g}": cw.Constant(lr=lr, total_steps=EPOCHS * STEPS_PER_EPOCH) for lr in (0.003, 0.01)}
    result["constant"] = accuracies(cw.compare(constants, seeds=GRID_SEEDS, baseline="0.01", **common))
    for epochs in (8, 3):
        forms = {name: one_cycle(epochs, STEPS_PER_EPOCH, **options) for name, options in FORMS.items()}
        found = cw.compare(
            forms, seeds=SEEDS, baseline="cosine", tune="lr_find", tuning_seeds=RANGE_TEST_SEEDS, **common
        )
        print(found, flush=True)
        result[f"{epochs} epochs"] = accuracies(found)
        record("super_convergence_checks", result)


def accuracies(comparison: cw.Comparison) -> dict[str, list[Any]]:
    """Return the final accuracy of each seed, by policy."""
    return {row.name: list(row.values) for row in comparison.rows}


if __name__ == "__main__":
    main()
