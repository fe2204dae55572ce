"""Healthy runs: sound models, properly drawn, at rates known to be good, at their start, in the middle, near the end.

The tasks are those of the range test's benchmark, with its split into development and test tasks, but for those that
are troubles themselves: raw features or targets, odd units of loss, labels that are noise, conditions planted. The
rates come from its oracle grids: one-cycle at the best peak rate, and a constant rate, the best of its grid. The start
of the run is told, as a Learner tells it. Nothing was left out after it was measured.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.diagnosis.subjects import TASKS, Subject, of_task
from benchmarks.lr_regret.oracle import FOLDERS, load
from cyclewise import Constant, OneCycle, Policy

# Share of the run that is done when it is measured.
STAGES = {"start": 0.0, "middle": 0.45, "near the end": 0.95}
POLICIES = ("one-cycle", "constant")
SEEDS = {"development": (20,), "test": (30, 31, 32, 33)}
_TROUBLED = ("raw", "made-large", "made-small", "noisy", "linear-made")


@dataclass(frozen=True)
class Run:
    """One healthy run at one moment.

    Attributes:
        half: "development" or "test".
        task: its name in the range test's benchmark.
        policy: "one-cycle" or "constant".
        stage: a key of :data:`STAGES`.
        seed: that weights and batches are drawn from.
    """

    half: str
    task: str
    policy: str
    stage: str
    seed: int

    def build(self, cache: Path | None = None) -> Subject:
        """Train up to the moment; with a folder `cache`, only once."""
        task = TASKS[self.half][self.task]
        if cache is None:
            return of_task(task, self.seed, policy=self._policy(), num_steps=self._num_steps())
        file = cache / f"{self.task}-{self.policy}-{self.stage.replace(' ', '_')}-{self.seed}.pt"
        if not file.exists():
            trained = of_task(task, self.seed, policy=self._policy(), num_steps=self._num_steps())
            cache.mkdir(exist_ok=True)
            torch.save((trained.model.state_dict(), trained.optimizer.state_dict()), file)
        subject = of_task(task, self.seed)
        weights, state = torch.load(file)
        subject.model.load_state_dict(weights)
        subject.optimizer.load_state_dict(state)
        return subject

    def _num_steps(self) -> int:
        return round(STAGES[self.stage] * TASKS[self.half][self.task].total_steps)

    def _policy(self) -> Policy:
        task = TASKS[self.half][self.task]
        has_grid = (FOLDERS[True] / f"{self.task}.json").exists()
        constant = load(self.task, constant=True).best() if has_grid else load(self.task).best() / 3.0
        if self.policy == "one-cycle":
            return OneCycle(max_lr=load(self.task).best(), total_steps=task.total_steps, pct_start=0.25)
        return Constant(lr=constant, total_steps=task.total_steps)


def runs(half: str) -> list[Run]:
    """Return the healthy runs of one half, "development" or "test"."""
    names = [name for name in TASKS[half] if not any(word in name for word in _TROUBLED)]
    # Each task at each stage is run under one policy and the other in turn.
    return [
        Run(half, name, POLICIES[(i + j + seed) % 2], stage, seed)
        for i, name in enumerate(names)
        for j, stage in enumerate(STAGES)
        for seed in SEEDS[half]
    ]
