"""How often `lr_find` refuses what cannot be trained, and how often it refuses what can, with 95 % bounds.

    python -m benchmarks.lr_regret.refusals [--seeds 7]

Hopeless: the class tasks of the development list with their training labels drawn anew, in the shares that the classes
have (so that there is something to learn about the shares), clicks among them; those with a quantity per sample as
target, with noise of mean zero instead; and all of them with a loss that is noise for the most part: a normal number is
added to each evaluation, three times as large as all that training can gain. Good: the development tasks as they are.
Seeds are none of those that the rule was fitted on.
"""

import argparse
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

import cyclewise as cw
from benchmarks.lr_regret.data import Split
from benchmarks.lr_regret.oracle import load
from benchmarks.lr_regret.task import Task, draw
from benchmarks.lr_regret.tasks import DEVELOPMENT
from benchmarks.recording import record
from cyclewise.stepping import LossFunction

_FIRST_SEED = 40
_TIMES_THE_GAIN = 3.0
_FEWEST_CASES = 150


def unrelated(split: Split, seed: int) -> Split:
    """Return the split with targets that know nothing of the inputs: labels shuffled, or noise for quantities."""
    generator = torch.Generator().manual_seed(seed)
    train, valid = (
        targets[torch.randperm(len(targets), generator=generator)]
        if are_labels(targets)
        else torch.randn(targets.shape, generator=generator)
        for targets in (split[1], split[3])
    )
    return split[0], train, split[2], valid


def are_labels(targets: Tensor) -> bool:
    """Return whether targets are labels, be it zeros and ones as floating-point numbers (clicks)."""
    return not targets.is_floating_point() or bool(((targets == 0.0) | (targets == 1.0)).all())


def hopeless(task: Task, seed: int) -> Task:
    """Return the task with unrelated targets."""
    return replace(task, split=lambda: unrelated(task.split(), seed))


def has_quantities(task: Task) -> bool:
    """Return whether the targets are one number per sample."""
    targets = task.split()[1]
    return not are_labels(targets) and targets.numel() == len(targets)


def with_noise(loss_fn: LossFunction, spread: float, seed: int) -> LossFunction:
    """Return a loss to whose every value a normal number is added."""
    generator = torch.Generator().manual_seed(seed)
    return lambda outputs, targets: loss_fn(outputs, targets) + spread * torch.randn((), generator=generator)


def has_classes(task: Task) -> bool:
    """Return whether the targets are one label per sample."""
    targets = task.split()[1]
    return are_labels(targets) and targets.ndim == 1


def ask(job: tuple[str, int, int]) -> dict[str, Any]:
    """Return what `lr_find` said of one case."""
    torch.set_num_threads(1)
    kind, index, seed = job
    task = DEVELOPMENT[index] if kind in ("good", "loud") else hopeless(DEVELOPMENT[index], seed)
    trial = draw(task, seed)
    loss_fn = trial.loss_fn
    if kind == "loud":
        loss_fn = with_noise(loss_fn, _TIMES_THE_GAIN * load(task.name).gain(), 1000 * index + seed)
    result = cw.lr_find(trial.model, trial.optimizer, loss_fn, trial.train_loader, seed=seed)
    refusal = None if result.refusal is None else result.refusal.name
    return {"kind": kind, "task": task.name, "seed": seed, "refusal": refusal, "improvement": result.improvement,
            "link": result.link, "max_lr": result.max_lr}  # fmt: skip


def bounds(count: int, n: int) -> tuple[float, float]:
    """Return the Clopper-Pearson 95 % bounds of a share, in percent."""
    from scipy.stats import beta

    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(0.975, count + 1, n - count))
    return 100.0 * low, 100.0 * high


def main() -> None:
    """Ask, print the shares and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(_FIRST_SEED, _FIRST_SEED + arguments.seeds)
    jobs = [("good", i, seed) for i in range(len(DEVELOPMENT)) for seed in seeds]
    jobs += [("labels", i, seed) for i, task in enumerate(DEVELOPMENT) if has_classes(task) for seed in seeds]
    quantities = [i for i, task in enumerate(DEVELOPMENT) if has_quantities(task)]
    more_seeds = range(_FIRST_SEED, _FIRST_SEED + max(len(seeds), -(-_FEWEST_CASES // len(quantities))))
    jobs += [("noise", i, seed) for i in quantities for seed in more_seeds]
    jobs += [("loud", i, seed) for i in range(len(DEVELOPMENT)) for seed in seeds]
    with get_context("spawn").Pool(arguments.workers) as pool:
        answers = pool.map(partial(ask), jobs, chunksize=1)
    result: dict[str, Any] = {"answers": answers}
    for kind in ("good", "labels", "noise", "loud"):
        own = [answer for answer in answers if answer["kind"] == kind]
        refused = sum(answer["refusal"] is not None for answer in own)
        low, high = bounds(refused, len(own))
        result[kind] = {"n": len(own), "refused": refused, "bounds_percent": [low, high]}
        print(f"{kind}: {refused} of {len(own)} refused, {100 * refused / len(own):.1f} % ({low:.1f} - {high:.1f})")
        for answer in own:
            if (answer["refusal"] is None) != (kind == "good"):
                print("  ", answer)
    record("lr_refusals", result)


if __name__ == "__main__":
    main()
