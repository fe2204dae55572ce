"""Whether short runs after the sweeps find a better rate: the lead that the goal came with.

    python -m benchmarks.lr_regret.probes [--seeds 2] [--workers 2]

`lr_find` with 100 steps says where to look. One-cycle runs of 40, 65 or 100 steps at rates about there, each from the
same weights over the same batches, are scored on held-out batches. The suggestion is then moved a share of the way to
the rate that scored best, less a constant, for a short run likes higher rates than a long one. Share and constant, with
and without momentum, are fitted on these very answers, in favour of the short runs. The same is done to what `lr_find`
suggests with 300 steps, which spends them all on its sweeps.

Development tasks alone, with seeds that the rule was not developed on.
"""

import argparse
import math
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice, product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import cyclewise as cw
from benchmarks.lr_regret.oracle import load
from benchmarks.lr_regret.regret import summary
from benchmarks.lr_regret.task import Task, draw, has_momentum
from benchmarks.lr_regret.tasks import DEVELOPMENT
from benchmarks.recording import record
from cyclewise.stepping import Step, evaluating

_FIRST_SEED = 394
_OFFSETS = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)  # decades
_CHOICES = {"7": _OFFSETS, "3 close": (-0.3, 0.0, 0.3), "3 wide": (-0.6, 0.0, 0.6), "2": (0.0, 0.3)}
_LENGTHS = (40, 65, 100)
_SHARES = (0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
_CONSTANTS = np.linspace(-1.0, 0.3, 14)  # decades
_NUM_HELD_OUT = 6
_GRID = np.linspace(-2.5, 2.5, 101)  # decades


def ask(job: tuple[int, int]) -> dict[str, Any] | None:
    """Return what `lr_find` suggests for a task and seed, and how runs about that score; None where it refuses."""
    torch.set_num_threads(1)
    index, seed = job
    task = DEVELOPMENT[index]
    found = {num_steps: _find(task, seed, num_steps) for num_steps in (100, 300)}
    first, last = found[100], found[300]
    if first is None or last is None:
        return None
    oracle = load(task.name)
    return {
        "has_momentum": has_momentum(task.name),
        "further": math.log10(last / first),
        "regrets": [oracle.regret(first * 10.0**shift) for shift in _GRID],
        "scores": {(length, offset): score(task, seed, first * 10.0**offset, length)
                   for length, offset in product(_LENGTHS, _OFFSETS)},
    }  # fmt: skip


def score(task: Task, seed: int, max_lr: float, num_steps: int) -> float:
    """Return the mean loss of held-out batches after a one-cycle run of so many steps; infinity where it diverges."""
    trial = draw(task, seed)
    batches = list(trial.train_loader)
    count = min(_NUM_HELD_OUT, -(-len(batches) // 4))
    held_out, rest = batches[:count], batches[count:]
    policy = cw.OneCycle(max_lr=max_lr, total_steps=num_steps, pct_start=0.25)
    scheduler = cw.PolicyLR(trial.optimizer, policy)
    step = Step(trial.model, trial.optimizer, trial.loss_fn)
    torch.manual_seed(seed)
    for batch in islice(cycle(rest), num_steps):
        if not bool(torch.isfinite(step([batch]))):
            return math.inf
        scheduler.step()
    with evaluating(trial.model):
        loss = float(np.mean([float(trial.loss_fn(trial.model(inputs), targets)) for inputs, targets in held_out]))
    return loss if math.isfinite(loss) else math.inf


def best_offset(answer: dict[str, Any], length: int, offsets: Sequence[float]) -> float:
    """Return where the scores are lowest: the middle of the parabola through the lowest and its neighbours."""
    scores = [answer["scores"][length, offset] for offset in offsets]
    i = int(np.argmin(scores))
    if 0 < i < len(scores) - 1 and math.isfinite(scores[i - 1]) and math.isfinite(scores[i + 1]):
        below, at, above = scores[i - 1 : i + 2]
        bend = below - 2.0 * at + above
        return offsets[i] + (0.5 * (offsets[i + 1] - offsets[i]) * (below - above) / bend if bend > 0 else 0.0)
    return offsets[i]


def moved(
    answers: Sequence[dict[str, Any]], start: NDArray[np.float64], best: NDArray[np.float64]
) -> tuple[list[float], dict[str, Any]]:
    """Return the regrets where suggestions are moved a share of the way to `best` less a constant, and the fit."""
    heavy = np.array([answer["has_momentum"] for answer in answers])
    fitted: dict[str, Any] = {"mean": math.inf}
    for share in _SHARES:
        regrets, constants = np.zeros(len(answers)), []
        for group in (heavy, ~heavy):
            tried = np.array([_regrets(answers, (1.0 - share) * start + share * (best + c)) for c in _CONSTANTS])
            lowest = int(tried[:, group].mean(1).argmin())
            regrets[group] = tried[lowest, group]
            constants.append(round(float(_CONSTANTS[lowest]), 3))
        if regrets.mean() < fitted["mean"]:
            fitted = {"mean": regrets.mean(), "share": share, "constants": constants, "regrets": regrets.tolist()}
    return fitted["regrets"], {"share": fitted["share"], "constants": fitted["constants"]}


def main() -> None:
    """Ask, print and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(_FIRST_SEED, _FIRST_SEED + arguments.seeds)
    jobs = list(product(range(len(DEVELOPMENT)), seeds))
    with get_context("spawn").Pool(arguments.workers) as pool:
        answers = [answer for answer in pool.map(ask, jobs, chunksize=1) if answer is not None]
    result: dict[str, Any] = {"seeds": list(seeds), "refused": len(jobs) - len(answers)}

    def keep(name: str, regrets: Sequence[float], **more: Any) -> None:
        result[name] = {"n": len(regrets), **summary(regrets), **more}
        print(f"{name:60s} {' '.join(f'{key} {value}' for key, value in result[name].items())}")

    here = np.zeros(len(answers))
    further = np.array([answer["further"] for answer in answers])
    keep("lr_find, 100 steps", _regrets(answers, here))
    keep("lr_find, 300 steps", _regrets(answers, further))
    for (label, offsets), length in product(_CHOICES.items(), _LENGTHS):
        best = np.array([best_offset(answer, length, offsets) for answer in answers])
        for steps, start in ((100, here), (300, further)):
            regrets, fitted = moved(answers, start, best)
            updates = steps + len(offsets) * length
            keep(f"lr_find, {steps} steps, then {label} runs of {length}", regrets, updates=updates, **fitted)
    record("lr_regret_probes", result)


def _find(task: Task, seed: int, num_steps: int) -> float | None:
    trial = draw(task, seed)
    find = partial(cw.lr_find, trial.model, trial.optimizer, trial.loss_fn, trial.train_loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find(num_steps=num_steps, seed=seed).max_lr


def _regrets(answers: Sequence[dict[str, Any]], shifts: NDArray[np.float64]) -> list[float]:
    pairs = zip(answers, shifts, strict=True)
    return [float(np.interp(shift, _GRID, answer["regrets"])) for answer, shift in pairs]


if __name__ == "__main__":
    main()
