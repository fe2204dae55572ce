"""What the start of a run knows: every rate of the grid trained for as many steps as a range test has in all.

    python -m benchmarks.lr_regret.short_runs [--num-steps 100] [--seeds 2] [--workers 2]

Each rate gets a one-cycle run of its own, from the same start, scored on the whole validation set and averaged over the
seeds: some fifty times the updates of a range test, and no noise of a batch. The rate whose short run ends best is
judged by what it gives in the whole run. What that loses no test of so few steps can be expected to win, whatever it
makes of them; a constant factor on the rate, with and without momentum, is fitted on the development tasks and allowed.

Seeds are none of those that the grids were made with, nor any that the rule was developed on.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from statistics import geometric_mean
from typing import Any

import numpy as np
import torch

from benchmarks.lr_regret.oracle import Oracle, load, train, validation_loss
from benchmarks.lr_regret.regret import summary
from benchmarks.lr_regret.task import Task, draw, has_momentum
from benchmarks.lr_regret.tasks import DEVELOPMENT, TEST
from benchmarks.recording import RESULTS, record

_FIRST_SEED = 700
_WIDTHS = (0.08, 0.2)  # decades
_SHIFTS = np.linspace(-1.0, 1.0, 41)  # decades
_LISTS: Mapping[str, Sequence[Task]] = {"development": DEVELOPMENT, "test": TEST}


def short_runs(job: tuple[str, int], *, num_steps: int, seeds: Sequence[int]) -> Oracle:
    """Return the final losses of runs of so many steps at each rate of a task's grid, no run longer than the task's."""
    torch.set_num_threads(1)
    which, index = job
    task = _LISTS[which][index]
    short = replace(task, total_steps=min(num_steps, task.total_steps))
    rates = load(task.name).rates
    losses = tuple(tuple(train(short, rate, seed, constant=False) for rate in rates) for seed in seeds)
    return Oracle(task.name, rates, losses, tuple(validation_loss(draw(task, seed)) for seed in seeds))


def shifts(picked: Mapping[str, float]) -> Callable[[str], float]:
    """Return the factor for each task by which the rates picked for the development tasks lose least."""
    factors = {}
    for is_heavy in (False, True):
        names = [name for name in picked if has_momentum(name) is is_heavy]
        means = [np.mean([load(name).regret(picked[name] * 10.0**shift) for name in names]) for shift in _SHIFTS]
        factors[is_heavy] = float(10.0 ** _SHIFTS[int(np.argmin(means))])
    return lambda name: factors[has_momentum(name)]


def together(which: str, num_steps: int, picked: Mapping[str, float]) -> list[float]:
    """Return the regrets of the geometric means of what short runs pick and what `lr_find` last suggested."""
    scores = json.loads((RESULTS / f"lr_regret_{which}.json").read_text())["result"][f"{num_steps} steps"]["scores"]
    return [
        load(score["task"]).regret(
            None if score["max_lr"] is None else geometric_mean([score["max_lr"], picked[score["task"]]])
        )
        for score in scores
    ]


def main() -> None:
    """Train, print what it knows and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(_FIRST_SEED, _FIRST_SEED + arguments.seeds)
    jobs = [(which, index) for which, tasks in _LISTS.items() for index in range(len(tasks))]
    run = partial(short_runs, num_steps=arguments.num_steps, seeds=seeds)
    with get_context("spawn").Pool(arguments.workers) as pool:
        curves = dict(zip(jobs, pool.map(run, jobs, chunksize=1), strict=True))
    result: dict[str, Any] = {"num_steps": arguments.num_steps, "seeds": list(seeds)}
    for width in _WIDTHS:
        picked = {which: {curve.name: curve.best(width) for (own, _), curve in curves.items() if own == which}
                  for which in _LISTS}  # fmt: skip
        factor = shifts(picked["development"])
        for which, rates in picked.items():
            moved = {name: rate * factor(name) for name, rate in rates.items()}
            rows = {
                "short runs": [load(name).regret(rate) for name, rate in rates.items()],
                "short runs, moved": [load(name).regret(rate) for name, rate in moved.items()],
                "short runs, moved, with lr_find": together(which, arguments.num_steps, moved),
            }
            for name, regrets in rows.items():
                label = f"{which}, {name}, smoothed over {width} decades"
                result[label] = {"n": len(regrets), **summary(regrets)}
                print(f"{label:70s} {' '.join(f'{key} {value:.1f}' for key, value in result[label].items())}")
            worst = sorted(((load(name).regret(rate), name) for name, rate in moved.items()), reverse=True)[:8]
            result[f"{which}, worst, smoothed over {width} decades"] = worst
    updates = [len(curve.rates) * min(arguments.num_steps, _LISTS[which][index].total_steps) * len(seeds)
               for (which, index), curve in curves.items()]  # fmt: skip
    result["updates"] = float(np.mean(updates))
    record(f"lr_regret_short_runs_{arguments.num_steps}", result)


if __name__ == "__main__":
    main()
