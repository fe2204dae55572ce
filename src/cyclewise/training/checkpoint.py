"""Checkpoints while a fit runs: every so many steps or epochs, at the best epoch, at Ctrl-C and at the end."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from cyclewise._validation import whole
from cyclewise.errors import CheckpointError
from cyclewise.files import remove_leftovers
from cyclewise.training import bundle, saving
from cyclewise.training.callbacks import Callback
from cyclewise.training.lock import Lock
from cyclewise.training.snapshots import snapshots_in

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner


class Checkpoint(Callback):
    """Write checkpoints from which ``learn.resume(directory)`` goes on with the same bits.

    Each holds weights, optimizer, scaler, policy and its step, the random number generators, the position in the
    training data, the history and the states of the other callbacks. It is written whole or not at all: under a
    temporary name, flushed, then renamed. A write that fails (a full disk) is a warning; the training goes on, and the
    checkpoints before it are still there. There is always one at the last step, one where Ctrl-C ends the fit, and one
    where a fit with :class:`Snapshots` on the disk begins.

    Args:
        directory: where they go, one folder each; made if it is missing. One run, one directory: a fit refuses one
            that holds the checkpoints of a run that its Learner has neither begun nor resumed, or into which another
            process is training.
        every_steps: write after every so many steps of a fit.
        every_epochs: write after every so many epochs; without either, after each.
        keep: keep those of so many of the last steps that were written, at least 1, and besides them the one with the
            lowest validation loss. A later one of the same step (the end of an epoch, of the fit) takes the place of
            the one before it once it is on the disk.

    Attributes:
        last: the folder of the last checkpoint that was written, None before the first.

    Raises:
        ArgumentTypeError: `directory` is no path.
        ArgumentError: `directory` is a file, or a number is not a whole one of at least 1.

    Example:
        >>> import tempfile, torch, cyclewise as cw
        >>> def make_learner():
        ...     _ = torch.manual_seed(0)
        ...     data = cw.Data.from_arrays(torch.randn(64, 4), torch.arange(64) % 2, batch_size=16)
        ...     return cw.Learner(torch.nn.Linear(4, 2), data, progress=False)
        >>> policy = cw.Constant(lr=0.1, total_steps=10)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     first = make_learner()
        ...     _ = first.fit(policy, callbacks=[cw.Checkpoint(directory, every_steps=5)])
        ...     later = make_learner()
        ...     later.resume(directory), torch.equal(first.model.weight, later.model.weight)
        (10, True)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        every_epochs: int | None = None,
        keep: int = 3,
    ) -> None:
        self.directory = saving.as_directory(directory)
        if every_steps is not None:
            whole("every_steps", every_steps, minimum=1, way_out="1000 writes after every thousand updates")
        if every_epochs is not None:
            whole("every_epochs", every_epochs, minimum=1, way_out="1 writes after every epoch")
        self.keep = whole("keep", keep, minimum=1, way_out="3 is a good number")
        self.last: Path | None = None
        self._every_steps = every_steps
        self._every_epochs = 1 if every_steps is None and every_epochs is None else every_epochs
        self._num_epochs = 0
        self._has_verified = False
        self._is_failing = False
        self._is_untidy = False
        self._lock = Lock(self.directory)

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Lock the directory, clear away what a killed process left, and write if snapshots will be left on the disk.

        A fit that leaves them, killed before its first checkpoint, could neither be told from another one, nor go on in
        their folder.
        """
        del total_steps
        self._num_epochs = 0
        saving.refuse(learner, self._lock.take)
        if learner.runtime.is_main:
            with self._tidying():
                remove_leftovers(self.directory)
        callbacks = () if learner.run is None else learner.run.callbacks
        if learner.interrupted is None and any(kept.directory is not None for kept in snapshots_in(callbacks)):
            self._write(learner)

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Write if it is time to."""
        del loss
        if self._every_steps is not None and (step + 1) % self._every_steps == 0:
            self._write(learner)

    def on_epoch_end(self, learner: "Learner", epoch: "Epoch") -> None:
        """Write if it is time to, or if the epoch is the best so far."""
        self._num_epochs += 1
        is_due = self._every_epochs is not None and self._num_epochs % self._every_epochs == 0
        is_best = epoch.valid_loss is not None and math.isfinite(epoch.valid_loss) and epoch.valid_loss < self._best()
        if learner.runtime.gather(is_due or is_best)[0]:
            self._write(learner, valid_loss=epoch.valid_loss)

    def on_interrupt(self, learner: "Learner") -> None:
        """Write where Ctrl-C has ended the fit."""
        self._is_failing = False
        self._write(learner)

    def on_fit_end(self, learner: "Learner") -> None:
        """Write the fit that has ended; one that an exception ended has its last checkpoint already."""
        try:
            if learner.run is None:
                self._is_failing = False
                # It takes the place of the one at the end of the last epoch, and so has its scores.
                epochs = learner.history.epochs
                was_scored = bool(epochs) and epochs[-1].step == learner.num_steps
                self._write(learner, valid_loss=epochs[-1].valid_loss if was_scored else None)
        finally:
            self._lock.release()

    def state_dict(self) -> dict[str, int]:
        """Return the epochs counted so far."""
        return {"num_epochs": self._num_epochs}

    def load_state_dict(self, state: "dict[str, int]") -> None:  # type: ignore[override]
        """Go on counting."""
        self._num_epochs = state["num_epochs"]

    def _write(self, learner: "Learner", *, valid_loss: float | None = None) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in learner.model.parameters()):
            return  # the next loss will say so; a checkpoint of such weights is no use, and would push a good one out
        try:
            # Another run may have begun here since the fit did.
            saving.refuse_other_run(learner, self.directory)
            written = saving.write(learner, self.directory, valid_loss=valid_loss)
        except OSError as error:
            # Said once, until one has been written again or the fit ends: a warning at every step would fill the log.
            if not self._is_failing:
                warnings.warn(
                    f"the checkpoint at step {learner.num_steps} could not be written to {str(self.directory)!r} "
                    f"({error}); training goes on, make room for the next one",
                    UserWarning,
                    stacklevel=2,
                )
            self._is_failing = True
            return
        self._is_failing = False
        if written is None:
            return
        if not self._has_verified:
            # An object that cannot be loaded without running code must be known of now, not at the resume.
            bundle.read(written.path)
            self._has_verified = True
        self.last = written.path
        with self._tidying():
            self._clear()

    @contextmanager
    def _tidying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_untidy:  # said once
                warnings.warn(
                    f"old checkpoints in {str(self.directory)!r} could not be looked through or removed ({error}); "
                    "training goes on, remove what is not needed by hand",
                    UserWarning,
                    stacklevel=4,
                )
            self._is_untidy = True

    def _clear(self) -> None:
        found = bundle.find(self.directory)
        # Of equally good ones the last: of one step it is the one that is kept anyway.
        losses = [(loss, -item.index) for item in found if (loss := _valid_loss(item)) is not None]
        best = -min(losses)[1] if losses else None
        newest = {item.step: item.index for item in found}
        kept = {best, *sorted(newest.values())[-self.keep :]}
        for item in found:
            if item.index not in kept:
                bundle.remove(item)

    def _best(self) -> float:
        losses: list[float] = []
        with self._tidying():
            losses = [loss for item in bundle.find(self.directory) if (loss := _valid_loss(item)) is not None]
        return min(losses, default=math.inf)


def checkpoints_last(callbacks: Sequence[Callback], learner: "Learner") -> list[Callback]:
    """Return the callbacks of a fit in the order in which they are called: what is written holds what the others did.

    Raises:
        CheckpointError: a :class:`Checkpoint` has the directory of another run.
    """
    ordered = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
    for callback in ordered:
        if isinstance(callback, Checkpoint):
            saving.refuse_other_run(learner, callback.directory)
    return ordered


def _valid_loss(found: bundle.Found) -> float | None:
    try:
        loss = bundle.read_manifest(found.path).get("valid_loss")
    except CheckpointError:
        return None
    return loss if isinstance(loss, float) and math.isfinite(loss) else None
