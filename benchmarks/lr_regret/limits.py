"""What stands in the way of a smaller worst case: three limits, on the development tasks alone.

    python -m benchmarks.lr_regret.limits [--seeds 8] [--num-steps 100]

- **Scatter.** Each task's suggestions moved by one factor, the same for all seeds and the best there is for that task:
  what a rule would lose that knew by how much it errs on each task, and had only the scatter between seeds left.
- **What the sweeps know.** A forest of trees learns, from everything that the three sweeps show of the other tasks,
  what each factor on the suggestion would lose, and chooses the factor for the tasks that it has not seen.
- **One draw.** Every rate of the grid trained to its end with one seed, the losses smoothed over rates, the best judged
  on the other seeds: what thousands of updates know that see one draw of weights and batches.

Seeds are none of those that the rule was fitted on.
"""

import argparse
import warnings
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor

import cyclewise as cw
from benchmarks.lr_regret.oracle import load
from benchmarks.lr_regret.regret import summary
from benchmarks.lr_regret.task import draw, has_momentum
from benchmarks.lr_regret.tasks import DEVELOPMENT
from benchmarks.recording import record
from cyclewise.range_test import readings

_FIRST_SEED = 380
_SHIFTS = np.linspace(-0.6, 0.6, 25)  # decades
_WIDTHS = (0.08, 0.15, 0.25, 0.35)  # decades
_FOLDS = 12
# What a curve shows is read at so many rates about the suggestion, up to 0.8 decades away.
_PLACES = np.linspace(-0.8, 0.8, 9)


def ask(job: tuple[int, int, int]) -> dict[str, Any]:
    """Return the suggestion for one task and seed, what the sweeps showed, and what each shift of it would lose."""
    torch.set_num_threads(1)
    index, seed, num_steps = job
    task = DEVELOPMENT[index]
    trial = draw(task, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cw.lr_find(
            trial.model, trial.optimizer, trial.loss_fn, trial.train_loader, num_steps=num_steps, seed=seed
        )
    regrets = None
    if result.max_lr is not None:
        regrets = [load(task.name).regret(result.max_lr * 10.0**shift) for shift in _SHIFTS]
    return {"task": task.name, "seed": seed, "shown": shown(index, result), "regrets": regrets}


@cache
def num_samples(index: int) -> int:
    """Return the number of training samples of a task."""
    return len(DEVELOPMENT[index].split()[1])


def shown(index: int, result: cw.RangeTest) -> list[float]:
    """Return everything that the sweeps show, in decades about the suggestion and in shares of each sweep's fall."""
    if result.max_lr is None:
        return []
    task, peak = DEVELOPMENT[index], np.log10(result.max_lr)
    optimizer = str(dict(result.settings)["optimizer"])
    values = [float(optimizer == name) for name in ("SGD", "Adam", "AdamW", "RMSprop")]
    values += [float(has_momentum(task.name)), np.log10(num_samples(index))]
    values += [np.log10(task.batch_size), float(len(result.close_ups)), result.improvement or 0.0, result.link or 0.0]
    curves = (result.curve, *result.close_ups)
    for curve in (curves[0], curves[1], curves[-1]):
        usable = curve.usable()
        if len(usable.lr) < readings.FEWEST_POINTS:
            values += [-9.0] * (7 + len(_PLACES))
            continue
        reading = readings.first_valley(readings.read(usable.lr, usable.loss))
        depth = reading.start - reading.smooth
        deepest = max(float(depth.max()), 1e-12)
        rates = [readings.minimum(usable.lr, reading), readings.half_lost(usable.lr, reading), usable.lr[-1]]
        rates += [readings.reached(usable.lr, reading, share) for share in (0.5, 0.9)]
        values += [float(np.log10(rate) - peak) for rate in rates]
        values += [reading.noise / deepest, deepest / max(abs(reading.start), 1e-12)]
        values += np.clip(np.interp(_PLACES + peak, np.log10(usable.lr), depth / deepest), -1.0, 1.0).tolist()
    return [float(np.nan_to_num(value, nan=-9.0, posinf=9.0, neginf=-9.0)) for value in values]


def shifted_per_task(answers: Sequence[dict[str, Any]]) -> list[float]:
    """Return the regrets where each task's suggestions are all moved by the factor that is best for that task."""
    regrets = []
    for task in DEVELOPMENT:
        own = np.array([answer["regrets"] for answer in answers if answer["task"] == task.name])
        if len(own):
            regrets += own[:, int(own.mean(0).argmin())].tolist()
    return regrets


def shifted_by_forest(answers: Sequence[dict[str, Any]], least_gain: float) -> list[float]:
    """Return the regrets where the factor is chosen by trees that have not seen the task.

    Args:
        answers: of all tasks and seeds.
        least_gain: what the forest must promise, in regret per factor of two, to move a suggestion.
    """
    names = np.array([answer["task"] for answer in answers])
    inputs, regrets = (np.array([answer[key] for answer in answers]) for key in ("shown", "regrets"))
    promised = np.zeros_like(regrets)
    shuffled = np.random.default_rng(0).permutation(np.unique(names))
    for fold in np.array_split(shuffled, _FOLDS):
        unseen = np.isin(names, fold)
        counts = {name: (names == name).sum() for name in shuffled}
        forest = ExtraTreesRegressor(400, min_samples_leaf=8, max_features=0.4, n_jobs=2, random_state=0)
        forest.fit(inputs[~unseen], regrets[~unseen], sample_weight=[1.0 / counts[name] for name in names[~unseen]])
        promised[unseen] = forest.predict(inputs[unseen])
    chosen = (promised + least_gain * np.abs(_SHIFTS) / 0.3).argmin(1)
    return [float(row[i]) for row, i in zip(regrets, chosen, strict=True)]


def main() -> None:
    """Ask, print the limits and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(_FIRST_SEED, _FIRST_SEED + arguments.seeds)
    jobs = [(i, seed, arguments.num_steps) for i in range(len(DEVELOPMENT)) for seed in seeds]
    with get_context("spawn").Pool(arguments.workers) as pool:
        answers = [answer for answer in pool.map(ask, jobs, chunksize=4) if answer["regrets"] is not None]
    middle = int(np.abs(_SHIFTS).argmin())
    rows = {"the rule": [answer["regrets"][middle] for answer in answers]}
    rows["best factor for each task"] = shifted_per_task(answers)
    for least_gain in (0.0, 0.01, 0.02):
        rows[f"factor chosen by a forest, least gain {least_gain}"] = shifted_by_forest(answers, least_gain)
    for width in _WIDTHS:
        regrets = [regret for task in DEVELOPMENT for regret in load(task.name).one_seed_regrets(width)[:4]]
        rows[f"every rate to its end once, smoothed over {width} decades"] = regrets
    worst = sorted(((row["regrets"][middle], row["task"], row["seed"]) for row in answers), reverse=True)[:20]
    result: dict[str, Any] = {
        "num_steps": arguments.num_steps,
        "seeds": list(seeds),
        "refused": len(jobs) - len(answers),
        "worst": worst,
    }
    for regret, task, seed in worst:
        print(f"{task:32s} seed {seed}: {100.0 * regret:.1f}")
    for name, regrets in rows.items():
        result[name] = {"n": len(regrets), **summary(regrets)}
        print(f"{name:60s} {' '.join(f'{key} {value:.1f}' for key, value in result[name].items())}")
    record(f"lr_regret_limits_{arguments.num_steps}", result)


if __name__ == "__main__":
    main()
