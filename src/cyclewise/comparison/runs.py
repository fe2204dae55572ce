"""One run: a fresh Learner of a seed, trained by a policy, or its range test. What workers execute."""

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError, DivergedError
from cyclewise.policies import Policy
from cyclewise.state import preserve, seed_everything
from cyclewise.training import Callback, History, Learner

# Two runs that begin with the same weights and the same batches, so many of them, are taken to have the same data.
_NUM_BATCHES = 3
LOSS_NAMES = ("loss", "valid_loss")


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        seed: handed to ``make_learner``; seeds the global generators too.
        policy: what to train by; None for a range test.
        total_steps: length of the run that a range test is for; None for a training run, whose policy has one.
    """

    seed: int
    policy: Policy | None = None
    total_steps: int | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What became of a run.

    Attributes:
        seed: of the run.
        history: what happened, up to where it ended.
        error: what a run that diverged said; empty for one that did not.
        start: stand for the weights it began with, and for these with its first batches, one by one; as far as two
            runs of a seed got, they share them.
        max_lr: peak rate that a range test found; None where it refused, and for training.
        constant_lr: rate to hold that it found.
        num_steps: optimizer updates spent.
        seconds: wall-clock time, validation included, without making the Learner.
    """

    seed: int
    history: History = field(default_factory=History)
    error: str = ""
    start: tuple[str, ...] = ()
    max_lr: float | None = None
    constant_lr: float | None = None
    num_steps: int = 0
    seconds: float = 0.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self._found() == other._found()

    def __hash__(self) -> int:
        return hash((self.seed, self.start, self.num_steps))

    def _found(self) -> dict[str, Any]:
        return {**vars(self), "seconds": None}

    def final(self, metric: str) -> float | None:
        """Return a metric at the end, on validation data; None where the run diverged or the number is not finite."""
        if self.error or not self.history.epochs:
            return None
        return _score(self.history.epochs[-1], metric)

    def scores(self, metric: str) -> tuple[list[int], list[float | None]]:
        """Return the steps at which epochs ended, and a metric there."""
        epochs = self.history.epochs
        return [epoch.step for epoch in epochs], [_score(epoch, metric) for epoch in epochs]

    def first_at(self, metric: str, target: float, *, lower_is_better: bool) -> tuple[int, float] | None:
        """Return steps and seconds up to the first epoch whose metric is as good as the target; None if there is none.

        >>> from cyclewise.training.history import Epoch
        >>> epochs = (Epoch(10, 1.0, 0.9, seconds=2.0), Epoch(20, 0.8, 0.5, seconds=2.0))
        >>> Run(0, History(epochs=epochs)).first_at("loss", 0.6, lower_is_better=True)
        (20, 4.0)
        """
        seconds = 0.0
        for epoch in self.history.epochs:
            seconds += epoch.seconds
            score = _score(epoch, metric)
            if score is not None and (score <= target if lower_is_better else score >= target):
                return epoch.step, seconds
        return None

    def without_steps(self) -> "Run":
        """Return the run with what happened at the ends of epochs alone."""
        history = History(epochs=self.history.epochs, policies=self.history.policies)
        return Run(**{**vars(self), "history": history})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "start": list(self.start), "history": self.history.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """Return the run that :meth:`to_dict` described."""
        return cls(**{**values, "start": tuple(values["start"]), "history": History.from_dict(values["history"])})


class Runner:
    """Makes a Learner and trains it, or runs its range test; travels to workers.

    Args:
        make_learner: seed -> untrained Learner.
        metric: a score that the Learner must have.
    """

    def __init__(self, make_learner: Callable[[int], Learner], metric: str) -> None:
        self._make_learner = make_learner
        self._metric = metric

    def __call__(self, job: Job) -> Run:
        """Make the run of a job; the global generators are as they were afterwards."""
        with ExitStack() as stack:
            stack.enter_context(preserve())
            if multiprocessing.parent_process() is not None:
                # What the user's code prints in a worker must not get between the results on standard output.
                stack.enter_context(redirect_stdout(sys.stderr))
            seed_everything(job.seed)
            learn = self._make_learner(job.seed)
            self._check(learn)
            learn.progress = False
            return _range_test(learn, job) if job.policy is None else _train(learn, job.policy, job.seed)

    def _check(self, learn: Any) -> None:
        if not isinstance(learn, Learner):
            raise ArgumentTypeError(
                f"make_learner must return a cyclewise.Learner, got {describe(learn)}; "
                "end it with `return Learner(model, data)`"
            )
        if learn.history.num_steps:
            raise ArgumentError(
                f"make_learner must return an untrained Learner, got one with {learn.history.num_steps} steps behind "
                "it; make model, data and optimizer inside the function"
            )
        if learn.data.valid_loader is None:
            learn.evaluate()  # raises, with the way out
        if self._metric not in (*LOSS_NAMES, *learn.metrics):
            listed = ", ".join(repr(name) for name in ("loss", *learn.metrics))
            raise ArgumentError(
                f"metric must be a name in evaluate(), got {self._metric!r}; the Learner has {listed}, "
                "more come with Learner(metrics=...)"
            )


class _Start(Callback):
    """Hashes the weights that a fit begins with, and its first batches."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.digests: list[str] = []

    def on_fit_start(self, learner: Learner, total_steps: int) -> None:
        del total_steps
        self._add(learner.model.state_dict())
        self.digests.append(self._hash.hexdigest()[:16])

    def on_gradients(self, learner: Learner, batches: Sequence[Any]) -> None:
        del learner
        if len(self.digests) <= _NUM_BATCHES:
            self._add(batches)
            self.digests.append(self._hash.hexdigest()[:16])

    def _add(self, item: Any) -> None:
        if isinstance(item, Tensor):
            self._hash.update(f"{item.dtype} {tuple(item.shape)}".encode())
            self._hash.update(item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            for key, value in item.items():
                self._hash.update(str(key).encode())
                self._add(value)
        elif isinstance(item, (list, tuple)):
            for value in item:
                self._add(value)
        elif isinstance(item, (int, float, str)):
            self._hash.update(repr(item).encode())


def _train(learn: Learner, policy: Policy, seed: int) -> Run:
    start, error = _Start(), ""
    began = time.perf_counter()
    try:
        learn.fit(policy, callbacks=[start])
    except DivergedError as diverged:
        error = str(diverged)
    seconds = time.perf_counter() - began
    history = learn.history
    return Run(seed, history, error, tuple(start.digests), num_steps=history.num_steps, seconds=seconds)


def _range_test(learn: Learner, job: Job) -> Run:
    began = time.perf_counter()
    found = learn.lr_find(total_steps=job.total_steps, progress=False)
    return Run(
        job.seed,
        error="" if found.refusal is None else found.refusal.value,
        max_lr=found.max_lr,
        constant_lr=found.constant_lr,
        num_steps=found.num_steps,
        seconds=time.perf_counter() - began,
    )


def _score(epoch: Any, metric: str) -> float | None:
    value = epoch.valid_loss if metric in LOSS_NAMES else epoch.metrics.get(metric)
    return value if value is not None and abs(value) < float("inf") else None
