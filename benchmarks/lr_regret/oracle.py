"""What every learning rate would have given: the final validation loss over a fine grid, computed once and kept.

    python -m benchmarks.lr_regret.oracle development --workers 2 [--constant]

One file per task under ``oracle/`` (``constant/`` for rates held constant); a task that has one is not computed again.
The grid is widened by a quarter of a decade at a time until it has seen the loss get clearly worse on both sides, then
refined around the best. Four seeds are run, and 28 more where those four leave a noise floor above 1 %.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lr_regret.task import Task, Trial, draw
from benchmarks.lr_regret.tasks import DEVELOPMENT, TEST
from cyclewise import Constant, OneCycle, Policy, PolicyLR
from cyclewise.stepping import Step, evaluating

FOLDERS = {True: Path(__file__).with_name("constant"), False: Path(__file__).with_name("oracle")}
SEEDS = (0, 1, 2, 3)
# Where four seeds disagree about the best rate: none of those that `lr_find` is judged with.
MORE_SEEDS = tuple(range(100, 128))
_HIGHEST_NOISE_FLOOR = 0.01
_SPACING = 0.25
_FEWEST_RATES = 16
_NUM_FINE = 8
_FINE_SPACING = 0.08
# Regrets at the same rate scatter between seeds: neighbours within this many decades are averaged.
_BANDWIDTH = 0.08


@dataclass(frozen=True)
class Oracle:
    """Final validation losses of one task.

    Attributes:
        rates: peak rates, rising, shape [R].
        losses: final validation loss of each seed at each rate, shape [S, R]; not finite where the run diverged.
        start: validation loss of each seed before training, shape [S].
    """

    name: str
    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    start: tuple[float, ...]

    def regret(self, rate: float | None) -> float:
        """Return the share of the achievable improvement that `rate` loses; 1 where it is None or diverges."""
        return 1.0 if rate is None else float(self._regret_at(rate, range(len(self.start))))

    def gain(self) -> float:
        """Return how far the best rate lowers the validation loss, in the loss's own unit."""
        return float(np.mean(self.start) - self._curve(range(len(self.start))).min())

    def noise_floor(self) -> float:
        """Return the mean regret of the best rate of one half of the seeds, judged on the other half."""
        half = len(self.start) // 2
        first, second = range(half), range(half, len(self.start))
        regrets = [
            self._regret_at(self._dense()[int(np.argmin(self._curve(picked)))], judged)
            for picked, judged in ((first, second), (second, first))
        ]
        return float(np.mean(regrets))

    def one_seed_regrets(self, bandwidth: float = _BANDWIDTH) -> list[float]:
        """Return, for each seed, the regret of the rate whose whole run ended best with it, judged on the others.

        It is what trying every rate of the grid to the end, once, would lose.

        Args:
            bandwidth: the losses of the one seed are smoothed over so many decades.
        """
        seeds = range(len(self.start))
        return [
            self._regret_at(
                self._dense()[int(np.argmin(self._curve([seed], bandwidth)))],
                [other for other in seeds if other != seed],
            )
            for seed in seeds
        ]

    def best(self, bandwidth: float = _BANDWIDTH) -> float:
        """Return the best rate, its losses smoothed over `bandwidth` decades."""
        return float(self._dense()[int(np.argmin(self._curve(range(len(self.start)), bandwidth)))])

    def basin(self, regret: float) -> tuple[float, float]:
        """Return the lowest and highest rate around the best whose regret is at most `regret`."""
        rates = self._dense()
        good = np.array([self.regret(rate) <= regret for rate in rates])
        low = high = int(np.argmin(self._curve(range(len(self.start)))))
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(rates) - 1 and good[high + 1]:
            high += 1
        return float(rates[low]), float(rates[high])

    def _dense(self) -> Any:
        return np.geomspace(self.rates[0], self.rates[-1], 400)

    def _regret_at(self, rate: float, seeds: Sequence[int]) -> float:
        curve = self._curve(seeds)
        start = float(np.mean(np.array(self.start)[list(seeds)]))
        # Beyond the grid the loss only gets worse, by the way the grid was made.
        loss = float(np.interp(math.log10(rate), np.log10(self._dense()), curve))
        return float(np.clip((loss - curve.min()) / (start - curve.min()), 0.0, 1.0))

    def _curve(self, seeds: Sequence[int], bandwidth: float = _BANDWIDTH) -> Any:
        start = np.array(self.start)[list(seeds), None]
        losses = np.array(self.losses)[list(seeds)]
        means = np.where(np.isfinite(losses), np.minimum(losses, start), start).mean(0)
        # A straight line through the neighbours, so that a slope is not flattened at the ends of the grid.
        positions, at = np.log10(self.rates), np.log10(self._dense())[:, None]
        weights = np.exp(-0.5 * ((positions - at) / bandwidth) ** 2)
        # Between coarse points the kernel may see nobody: then the line through the nearest two is what counts.
        linear = np.interp(at[:, 0], positions, means)
        offset = positions - at
        total, first, second = weights.sum(1), (weights * offset).sum(1), (weights * offset**2).sum(1)
        determinant = total * second - first**2
        local = ((second[:, None] - first[:, None] * offset) * weights * means).sum(1) / np.maximum(determinant, 1e-300)
        crowd = total**2 / np.maximum((weights**2).sum(1), 1e-300)
        return np.where((crowd > 2.2) & (determinant > 1e-12), local, linear)


def train(task: Task, rate: float, seed: int, *, constant: bool) -> float:
    """Train once, with one-cycle or at a constant rate, and return the final validation loss; infinite if it diverged.

    `rate` is the peak of the cycle, or the constant.
    """
    trial = draw(task, seed)
    policy: Policy = OneCycle(
        max_lr=rate, total_steps=task.total_steps, pct_start=0.25, div_factor=25, final_div_factor=1e4
    )
    if constant:
        policy = Constant(lr=rate, total_steps=task.total_steps)
    scheduler = PolicyLR(trial.optimizer, policy)
    step = Step(trial.model, trial.optimizer, trial.loss_fn)
    torch.manual_seed(seed)
    done = 0
    while done < task.total_steps:
        for batch in trial.train_loader:
            if done == task.total_steps:
                break
            loss = step([batch])
            scheduler.step()
            done += 1
            if done % 10 == 0 and not bool(torch.isfinite(loss)):
                return math.inf
    return validation_loss(trial)


def validation_loss(trial: Trial) -> float:
    """Return the loss of the whole validation set, in eval mode."""
    inputs, targets = trial.valid
    with evaluating(trial.model):
        loss = float(trial.loss_fn(trial.model(inputs), targets))
    return loss if math.isfinite(loss) else math.inf


@cache
def load(name: str, *, constant: bool = False) -> Oracle:
    """Return the stored oracle of a task."""
    values = json.loads((FOLDERS[constant] / f"{name}.json").read_text())
    losses = tuple(tuple(math.inf if loss is None else loss for loss in row) for row in values["losses"])
    return Oracle(values["name"], tuple(values["rates"]), losses, tuple(values["start"]))


def compute(task: Task, *, constant: bool) -> Oracle:
    """Run the grid of one task and keep it."""
    torch.set_num_threads(1)
    start = tuple(validation_loss(draw(task, seed)) for seed in SEEDS)
    found: dict[float, list[float]] = {}

    def measure(position: float) -> float:
        """Return the mean change of the loss at a rate, 0 where it diverges."""
        rate = float(f"{10.0**position:.4g}")
        if rate not in found:
            found[rate] = [train(task, rate, seed, constant=constant) for seed in SEEDS]
        return float(np.mean(np.minimum(found[rate], start) - np.array(start)))

    def worst_enough(position: float) -> bool:
        best = min(measure(math.log10(rate)) for rate in list(found))
        return measure(position) > 0.5 * best

    low = high = -2.0
    measure(low)
    while True:
        # Up until two in a row lose more than half of the best improvement, then down likewise.
        if not (worst_enough(high) and worst_enough(high - _SPACING) and high - low >= 2 * _SPACING) and high < 6.0:
            high += _SPACING
            measure(high)
        elif not (worst_enough(low) and worst_enough(low + _SPACING) and _improves(found, start)) and low > -11.0:
            low -= _SPACING
            measure(low)
        elif len(found) < _FEWEST_RATES:
            low -= _SPACING
            measure(low)
        else:
            break
    best = math.log10(min(found, key=lambda rate: measure(math.log10(rate))))
    for i in range(-(_NUM_FINE // 2), _NUM_FINE // 2 + 1):
        if i:
            measure(best + i * _FINE_SPACING)
    rates = sorted(found)
    # Of the stretch above where everything diverges, two rates say it all.
    alive = [i for i, rate in enumerate(rates) if any(math.isfinite(loss) for loss in found[rate])]
    rates = rates[: max(alive) + 3]
    oracle = Oracle(task.name, tuple(rates), tuple(zip(*(found[rate] for rate in rates), strict=True)), start)
    keep(oracle, constant=constant)
    return oracle


def add_seeds(task: Task, *, constant: bool) -> Oracle:
    """Run more seeds of a stored grid and keep them."""
    torch.set_num_threads(1)
    oracle = load(task.name, constant=constant)
    seeds = MORE_SEEDS[len(oracle.start) - len(SEEDS) :]
    losses = [tuple(train(task, rate, seed, constant=constant) for rate in oracle.rates) for seed in seeds]
    start = tuple(validation_loss(draw(task, seed)) for seed in seeds)
    oracle = replace(oracle, losses=(*oracle.losses, *losses), start=(*oracle.start, *start))
    keep(oracle, constant=constant)
    return oracle


def is_noisy(oracle: Oracle) -> bool:
    """Return whether the first seeds disagree about the best rate, and no more have been run."""
    first = replace(oracle, losses=oracle.losses[: len(SEEDS)], start=oracle.start[: len(SEEDS)])
    return first.noise_floor() > _HIGHEST_NOISE_FLOOR and len(oracle.start) < len(SEEDS) + len(MORE_SEEDS)


def keep(oracle: Oracle, *, constant: bool) -> None:
    """Write an oracle to its file and print what it says."""
    folder = FOLDERS[constant]
    folder.mkdir(exist_ok=True)
    values = asdict(oracle)
    values["losses"] = [[loss if math.isfinite(loss) else None for loss in row] for row in oracle.losses]
    (folder / f"{oracle.name}.json").write_text(json.dumps(values) + "\n")
    low_end, high_end = oracle.basin(0.02)
    print(
        f"{oracle.name:30s} {len(oracle.rates)} rates, {len(oracle.start)} seeds, best {oracle.best():.3g}, "
        f"2% basin {low_end:.3g} - {high_end:.3g}, noise floor {100 * oracle.noise_floor():.2f} %",
        flush=True,
    )


def _improves(found: dict[float, list[float]], start: tuple[float, ...]) -> bool:
    gains = [float(np.mean(np.array(start) - np.minimum(losses, start))) for losses in found.values()]
    return max(gains) > 1e-3 * float(np.mean(np.abs(start)))


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=("development", "test"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--constant", action="store_true", help="rates held constant instead of one-cycle")
    arguments = parser.parse_args()
    tasks = DEVELOPMENT if arguments.tasks == "development" else TEST
    folder = FOLDERS[arguments.constant]
    missing = [i for i, task in enumerate(tasks) if not (folder / f"{task.name}.json").exists()]
    with get_context("spawn").Pool(arguments.workers) as pool:
        pool.starmap(_compute_one, [(arguments.tasks, i, arguments.constant) for i in missing], chunksize=1)
        noisy = [i for i, task in enumerate(tasks) if is_noisy(load(task.name, constant=arguments.constant))]
        pool.starmap(_add_seeds_to_one, [(arguments.tasks, i, arguments.constant) for i in noisy], chunksize=1)


def _compute_one(which: str, index: int, constant: bool) -> None:
    compute((DEVELOPMENT if which == "development" else TEST)[index], constant=constant)


def _add_seeds_to_one(which: str, index: int, constant: bool) -> None:
    add_seeds((DEVELOPMENT if which == "development" else TEST)[index], constant=constant)


if __name__ == "__main__":
    main()
