"""What a Learner consists of, for those of its methods that live in files of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise.clipping import Clip
from cyclewise.policies import Policy
from cyclewise.progress import Progress
from cyclewise.range_test import RangeTest
from cyclewise.stepping import LossFunction, Step
from cyclewise.training.callbacks import Callback
from cyclewise.training.calls import Calls
from cyclewise.training.data import Data
from cyclewise.training.history import History
from cyclewise.training.run import Run
from cyclewise.training.runtime import Runtime
from cyclewise.training.snapshots import Snapshots


class Parts:
    """The attributes that all files of the Learner may use; :class:`~cyclewise.Learner` sets them.

    Attributes:
        own_data: this rank's share of `data`.
        calls: the numbered range tests and fits.
        range_test: the last one, if any.
        snapshots: those of the last fit that kept some.
        start: the weights and buffers that the first fit began with, by name, on the CPU; None where not remembered.
        interrupted: the state of a fit that a checkpoint was written in, until that fit is called again.
        own_directories: where this run's checkpoints are: what was begun by it, or resumed from.
        last_checkpoint: the newest checkpoint that was written, or resumed from.
        freezes_batch_norm: whether the BatchNorm layers of frozen groups stay in eval mode.
    """

    model: nn.Module
    data: Data
    own_data: Data
    optimizer: Optimizer
    loss_fn: LossFunction
    metrics: dict[str, Any]
    clip: Clip | None
    progress: Progress
    history: History
    runtime: Runtime
    calls: Calls
    run: Run | None
    range_test: RangeTest | None
    snapshots: Snapshots | None
    start: dict[str, Tensor] | None
    interrupted: Mapping[str, Any] | None
    own_directories: set[Path]
    last_checkpoint: Path | None
    freezes_batch_norm: bool

    def fit(
        self, policy: Policy | Sequence[Policy], *, callbacks: Sequence[Callback] = (), wd: float | None = None
    ) -> History:
        """Train by a policy."""
        raise NotImplementedError

    def steps_in(self, name: str, epochs: float) -> int:
        """Return the updates in so many epochs."""
        raise NotImplementedError

    def _step(self) -> Step:
        """Return what makes the updates."""
        raise NotImplementedError

    def _forward(self) -> nn.Module:
        """Return what scores and predicts: the model, compiled where that was asked for."""
        raise NotImplementedError
