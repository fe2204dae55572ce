"""Fewer iterations, measured: how short may one-cycle be and still end as good as a tuned run of 20 epochs?

    OMP_NUM_THREADS=1 python -m benchmarks.super_convergence.run [--images 4096] [--seeds 10] [--equal-seeds 10]
        [--linear]

The baselines are the best constant rate and the best step decay of a grid at 20 epochs, both tuned on two other seeds.
One-cycle's peak comes from `lr_find` alone, run on three other seeds; so do the rates of the other cyclic policies. All
are then run on the same seeds. Started again, it goes on with the runs that are missing. ``--images 16384`` is a
larger task, of five seconds an epoch, ``--images 60000`` the whole set, for a GPU. ``--linear`` runs one-cycle annealed
linearly, too.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import cyclewise as cw
from benchmarks.recording import record
from benchmarks.super_convergence.task import NUM_TRAIN, batch_size, make_learner, setting
from cyclewise.comparison.statistics import mean_and_error

# Ten: with the correction for seven policies eight seeds could not give a verdict, whatever they say.
NUM_SEEDS = 10
GRID = (0.01, 0.03, 0.1, 0.3, 1.0)
GRID_SEEDS, RANGE_TEST_SEEDS = (100, 101), (100, 101, 102)
LENGTHS = (1, 1.5, 2, 3, 4, 6, 8, 12, 20)
# Those on either side of the goals, and 12, added when 8 had fallen short of one.
LINEAR_LENGTHS = (2, 3, 6, 8, 12)
EPOCHS = 20
CYCLE_EPOCHS = 4


def baselines(steps_per_epoch: int) -> dict[str, cw.Policy]:
    """Return what one-cycle is held against, at rates that tuning replaces."""
    total_steps = EPOCHS * steps_per_epoch
    drops = (total_steps // 2, 3 * total_steps // 4)
    return {
        "constant": cw.Constant(lr=0.1, total_steps=total_steps),
        "step decay": cw.MultiStep(max_lr=0.1, milestones=drops, total_steps=total_steps),
    }


def one_cycle(epochs: float, steps_per_epoch: int, **options: Any) -> cw.Policy:
    """Return the policy that `lr_find` gives its rate for."""
    return cw.OneCycle(max_lr=1.0, total_steps=round(epochs * steps_per_epoch), **{"pct_start": 0.25, **options})


def cyclic(steps_per_epoch: int) -> dict[str, cw.Policy]:
    """Return the other policies at equal steps: cycles of four epochs, the lower bound a tenth of the upper."""
    total_steps, half = EPOCHS * steps_per_epoch, CYCLE_EPOCHS * steps_per_epoch // 2

    def triangles(mode: str, gamma: float = 1.0) -> cw.Policy:
        return cw.Cyclical(base_lr=0.1, max_lr=1.0, step_size_up=half, mode=mode, gamma=gamma, total_steps=total_steps)

    return {
        "one-cycle, momentum 0.95 to 0.85": one_cycle(EPOCHS, steps_per_epoch, base_momentum=0.85, max_momentum=0.95),
        "SGDR": cw.SGDR(max_lr=1.0, T_0=2 * half, num_cycles=EPOCHS // CYCLE_EPOCHS),
        "triangular": triangles("triangular"),
        "triangular2": triangles("triangular2"),
        "exp_range": triangles("exp_range", 0.1 ** (1 / total_steps)),
    }


def snapshots(
    sgdr: cw.Policy, make: Callable[[int], cw.Learner], folder: Path, num_seeds: int
) -> list[dict[str, float]]:
    """Return the scores of the ensemble of each SGDR run's five snapshots; those in the folder are not made again."""
    scores = []
    for seed in range(num_seeds):
        path = folder / f"snapshots-{sgdr.total_steps}-{sgdr.lr(0):.6g}-{seed}.json"
        if not path.exists():
            learn = make(seed)
            learn.progress = False
            kept = cw.Snapshots(sgdr.cycle_ends)
            learn.fit(sgdr, callbacks=[kept])
            ensemble = cw.Ensemble(learn.model, kept.states, learn.data, metrics=learn.metrics, progress=False)
            path.write_text(json.dumps(ensemble.evaluate()))
        scores.append(json.loads(path.read_text()))
    return scores


def shortest(ladder: cw.Comparison, lengths: Sequence[float], goal: float) -> float | None:
    """Return the shortest of the ladder's lengths whose mean is at least the goal."""
    means = {epochs: ladder.row(name(epochs)).mean for epochs in lengths}
    return next((epochs for epochs, mean in means.items() if mean is not None and mean >= goal), None)


def name(epochs: float) -> str:
    return f"one-cycle, {epochs:g} epochs"


def main() -> None:
    """Measure, print and keep after each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=NUM_TRAIN)
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--equal-seeds", type=int, help="seeds at equal steps, if more; eight give no verdict there")
    parser.add_argument("--linear", action="store_true", help="one-cycle annealed linearly, too")
    parser.add_argument("--store", type=Path, default=Path(__file__).with_name("store"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps_per_epoch = -(-arguments.images // batch_size(arguments.images))
    make = partial(make_learner, num_train=arguments.images)
    kept_as = "super_convergence" if arguments.images == NUM_TRAIN else f"super_convergence_{arguments.images}"
    common: dict[str, Any] = {
        "make_learner": make, "seeds": tuple(range(arguments.seeds)), "metric": "accuracy", "store": arguments.store,
        "workers": arguments.workers, "progress": True,
    }  # fmt: skip
    result: dict[str, Any] = {
        "setting": setting(arguments.images),
        "steps_per_epoch": steps_per_epoch,
        "epochs": EPOCHS,
    }

    fixed = cw.compare(baselines(steps_per_epoch), **common, baseline="constant", tune=GRID, tuning_seeds=GRID_SEEDS)
    print(fixed, flush=True)
    result["baselines"] = fixed.to_dict()
    tuned = {row.name: cw.policy_from_dict(row.policy) for row in fixed.rows if row.policy is not None}
    ranged = {"tune": "lr_find", "tuning_seeds": RANGE_TEST_SEEDS}
    ladders = {"": ("cosine", LENGTHS)}
    if arguments.linear:
        ladders["linear_"] = ("linear", LINEAR_LENGTHS)
    for mark, (anneal, lengths) in ladders.items():
        policies = {name(epochs): one_cycle(epochs, steps_per_epoch, anneal=anneal) for epochs in lengths}
        ladder = cw.compare(policies, **common, baseline=name(lengths[-1]), **ranged)
        print(ladder, flush=True)
        result[f"{mark}ladder"] = ladder.to_dict()
        result[f"{mark}shortest"] = {
            row.name: shortest(ladder, lengths, row.mean) for row in fixed.rows if row.mean is not None
        }
        record(kept_as, result)
        print({**result[f"{mark}shortest"], "of": EPOCHS}, flush=True)

    cosine = cw.Comparison.from_dict(result["ladder"])
    others = cw.compare(cyclic(steps_per_epoch), **common, baseline="SGDR", **ranged)
    policies = {**tuned, "one-cycle": cw.policy_from_dict(cosine.row(name(EPOCHS)).policy)}
    policies |= {row.name: cw.policy_from_dict(row.policy) for row in others.rows if row.policy is not None}
    equal_seeds = arguments.equal_seeds or arguments.seeds
    equal = cw.compare(policies, **{**common, "seeds": tuple(range(equal_seeds))}, baseline="constant")
    print(equal, flush=True)
    result["equal_steps"] = equal.to_dict()
    result["tuning_steps"] = {row.name: row.tuning_steps for c in (fixed, others) for row in c.rows}
    record(kept_as, result)
    result["snapshots"] = snapshots(policies["SGDR"], make, arguments.store, equal_seeds)
    accuracies = [scores["accuracy"] for scores in result["snapshots"]]
    mean, error = mean_and_error(accuracies)
    print(f"SGDR, five snapshots {mean:.4f} ± {error:.4f}")
    record(kept_as, result)


if __name__ == "__main__":
    main()
