"""How much a suggested learning rate loses: regret, interval and refusals of `lr_find`, task by task.

    python -m benchmarks.lr_regret.regret development|test [--num-steps 100 50 300] [--with-length] [--seeds 5]

Each suggestion is judged on the stored oracle grid of its task (see oracle.py). The seeds that draw weights and order
for `lr_find` are none of those that the grids were made with. A look at the TEST tasks is written down in looks.jsonl.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cyclewise as cw
from benchmarks.lr_regret.oracle import FOLDERS, load
from benchmarks.lr_regret.task import Task, draw
from benchmarks.lr_regret.tasks import DEVELOPMENT, TEST
from benchmarks.recording import environment, record

LOOKS = Path(__file__).with_name("looks.jsonl")
_FIRST_SEED = 10


@dataclass(frozen=True)
class Score:
    """One suggestion, judged.

    Attributes:
        regret: share of the achievable improvement lost by `max_lr`; 1 for a refusal.
        constant_regret: the same of `constant_lr` against the best constant rate; None without such a grid.
        interval_regret: the smallest regret inside the interval; 1 for a refusal.
        interval_factor: its upper end over its lower.
    """

    task: str
    seed: int
    num_steps: int
    max_lr: float | None
    regret: float
    constant_regret: float | None
    interval_regret: float
    interval_factor: float | None
    refusal: str | None
    improvement: float | None
    link: float | None
    updates: int


def judge(task: Task, seed: int, *, num_steps: int, with_length: bool) -> Score:
    """Call `lr_find` on a freshly drawn task and look its answer up."""
    torch.set_num_threads(1)
    trial = draw(task, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cw.lr_find(
            trial.model,
            trial.optimizer,
            trial.loss_fn,
            trial.train_loader,
            num_steps=num_steps,
            total_steps=task.total_steps if with_length else None,
            seed=seed,
        )
    oracle = load(task.name)
    constant = load(task.name, constant=True) if (FOLDERS[True] / f"{task.name}.json").exists() else None
    low, high = result.interval or (None, None)
    inside = 1.0 if low is None or high is None else min(oracle.regret(rate) for rate in np.geomspace(low, high, 40))
    return Score(
        task=task.name,
        seed=seed,
        num_steps=num_steps,
        max_lr=result.max_lr,
        regret=oracle.regret(result.max_lr),
        constant_regret=None if constant is None else constant.regret(result.constant_lr),
        interval_regret=inside,
        interval_factor=None if low is None or high is None else high / low,
        refusal=None if result.refusal is None else result.refusal.name,
        improvement=result.improvement,
        link=result.link,
        updates=result.num_steps,
    )


def summary(regrets: Sequence[float]) -> dict[str, float]:
    """Return median, mean, 90th percentile, worst, and the shares above 5 and 10 %, in percent."""
    values = 100.0 * np.array(regrets)
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "p90": float(np.quantile(values, 0.9)),
        "worst": float(values.max()),
        "over_5": float(100.0 * (values > 5.0).mean()),
        "over_10": float(100.0 * (values > 10.0).mean()),
    }


def report(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the figures of one setting, over all tasks and seeds."""
    factors = [score.interval_factor for score in scores if score.interval_factor is not None]
    constants = [score.constant_regret for score in scores if score.constant_regret is not None]
    return {
        "n": len(scores),
        "regret": summary([score.regret for score in scores]),
        "constant_regret": summary(constants) if constants else None,
        "interval_hits_percent": 100.0 * float(np.mean([score.interval_regret < 0.02 for score in scores])),
        "interval_factor_median": float(np.median(factors)) if factors else None,
        "refused": sum(score.refusal is not None for score in scores),
        "most_updates": max(score.updates for score in scores),
    }


def _judge_one(which: str, job: tuple[int, int, int, bool]) -> Score:
    index, seed, num_steps, with_length = job
    return judge((DEVELOPMENT if which == "development" else TEST)[index], seed, num_steps=num_steps,
                 with_length=with_length)  # fmt: skip


def main() -> None:
    """Judge, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=("development", "test"))
    parser.add_argument("--num-steps", type=int, nargs="+", default=[100])
    parser.add_argument("--with-length", action="store_true", help="once more with total_steps=")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="keep no result (development only)")
    arguments = parser.parse_args()
    tasks = DEVELOPMENT if arguments.tasks == "development" else TEST
    seeds = range(_FIRST_SEED, _FIRST_SEED + arguments.seeds)
    result: dict[str, Any] = {
        "noise_floor": summary([load(task.name).noise_floor() for task in tasks]),
        # The first seeds only, so that every task counts the same.
        "whole_grid_once": summary([regret for task in tasks for regret in load(task.name).one_seed_regrets()[:4]]),
    }
    with get_context("spawn").Pool(arguments.workers) as pool:
        for num_steps in arguments.num_steps:
            for with_length in (False, True) if arguments.with_length else (False,):
                jobs = [(i, seed, num_steps, with_length) for i in range(len(tasks)) for seed in seeds]
                scores = pool.map(partial(_judge_one, arguments.tasks), jobs, chunksize=1)
                name = f"{num_steps} steps" + (", length known" if with_length else "")
                result[name] = {**report(scores), "scores": [asdict(score) for score in scores]}
                _print(name, tasks, scores, result[name])
    print("noise floor (best rate of half of the seeds, judged on the others):", _line(result["noise_floor"]))
    print("every rate trained to the end with one seed, judged on the others:", _line(result["whole_grid_once"]))
    if arguments.tasks == "test":
        look = {name: {k: v for k, v in part.items() if k != "scores"} for name, part in result.items()}
        with LOOKS.open("a") as file:
            file.write(json.dumps({"environment": environment(), "result": look}) + "\n")
    if not arguments.dry:
        record(f"lr_regret_{arguments.tasks}", result)


def _print(name: str, tasks: Sequence[Task], scores: Sequence[Score], figures: dict[str, Any]) -> None:
    for task in tasks:
        own = [score for score in scores if score.task == task.name]
        rates = " ".join("refused " if s.max_lr is None else f"{s.max_lr:<8.2g}" for s in own)
        regrets = " ".join(f"{100 * s.regret:5.1f}" for s in own)
        signs = " ".join(f"{s.improvement or 0:6.1f}/{s.link or 0:<6.1f}" for s in own)
        print(f"{task.name:32s} {task.kind:30s} best {load(task.name).best():<8.2g} max_lr {rates} regret % {regrets}  "
              f"{signs} {' '.join(s.refusal or '' for s in own)}")  # fmt: skip
    print(f"{name}: regret {_line(figures['regret'])}; interval hits {figures['interval_hits_percent']:.0f} %, "
          f"factor {figures['interval_factor_median']:.1f}; refused {figures['refused']} of {figures['n']}; "
          f"updates at most {figures['most_updates']}")  # fmt: skip
    if figures["constant_regret"]:
        print(f"{name}: constant_lr regret {_line(figures['constant_regret'])}")


def _line(figures: dict[str, float]) -> str:
    return " ".join(f"{key} {value:.1f}" for key, value in figures.items())


if __name__ == "__main__":
    main()
