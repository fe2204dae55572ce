"""Send rate, loss and scores to an experiment tracker, by way of Accelerate."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cyclewise._validation import whole
from cyclewise.errors import ArgumentError, MissingExtraError
from cyclewise.training.callbacks import Callback

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner


class Track(Callback):
    """Log to TensorBoard, or to any other tracker that Accelerate knows by name; the first rank does.

    Logged are ``lr``, ``momentum`` and ``loss`` of every `every_steps`-th step, and ``train_loss``, ``valid_loss`` and
    the metrics of every epoch, against the steps over all fits. What cannot be written (a full disk) is a warning, one
    for each fit; the training goes on, and the next fit starts its trackers anew.

    Args:
        log_with: "tensorboard" (the one that is tested), "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive",
            "swanlab", "trackio", a tracker object of Accelerate's, or a list of them; None: the trackers that your own
            accelerator was made with.
        directory: where trackers that write files put them.
        run_name: name of the run or project.
        every_steps: steps between two lines; reading a loss makes a GPU wait.

    Raises:
        ArgumentError: a name is not known, or None is given and the accelerator has no trackers.
        MissingExtraError: the tracker's package is not installed.
    """

    def __init__(
        self,
        log_with: str | object | Sequence[Any] | None = "tensorboard",
        *,
        directory: str | os.PathLike[str] = "runs",
        run_name: str = "cyclewise",
        every_steps: int = 50,
    ) -> None:
        self.log_with = log_with
        self.directory = os.fspath(directory)
        self.run_name = run_name
        self.every_steps = whole("every_steps", every_steps, minimum=1, way_out="50 logs every 50th step")
        self._accelerator: Any = None
        self._own_trackers: list[Any] = []
        self._is_failing = False
        self._has_warned = False

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Start the trackers, once, and anew where they failed in the fit before."""
        del total_steps
        self._has_warned = False
        if self._accelerator is None or self._is_failing:
            self._accelerator, self._is_failing = None, False
            try:
                self._accelerator = self._started(learner)
            except OSError as error:
                self._warn("the trackers could not be started, and no values of this fit are logged", error)

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Log rate, momentum and loss if it is time to."""
        if step % self.every_steps == 0 and learner.run is not None and self._accelerator is not None:
            values = {"lr": learner.run.recorder.policy.lr(step), "loss": loss.item()}
            momentum = learner.run.recorder.policy.momentum(step)
            if momentum is not None:
                values["momentum"] = momentum
            self._log(learner, values)

    def on_epoch_end(self, learner: "Learner", epoch: "Epoch") -> None:
        """Log the scores."""
        values = {"train_loss": epoch.train_loss, **epoch.metrics}
        if epoch.valid_loss is not None:
            values["valid_loss"] = epoch.valid_loss
        self._log(learner, values)

    def _log(self, learner: "Learner", values: Mapping[str, float]) -> None:
        if self._accelerator is None:
            return
        step = learner.num_steps - 1
        try:
            self._accelerator.log(values, step=step)
        except OSError as error:
            # Tried again at the next values: some trackers recover.
            self._is_failing = True
            self._warn(f"the values of step {step} could not be logged, and later ones of this fit may not be", error)
        else:
            self._is_failing = False

    def _warn(self, what: str, error: OSError) -> None:
        # Said once a fit: a warning at every step would fill the log.
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{what} ({error}); training goes on, and learn.history holds them all; make room where the trackers "
                "write, or pass Track another directory, before the next fit",
                UserWarning,
                stacklevel=2,
            )

    def _started(self, learner: "Learner") -> Any:
        from accelerate import Accelerator
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, filter_trackers

        accelerator = learner.runtime.accelerator
        if self.log_with is None:
            if accelerator is None or not accelerator.trackers:
                raise ArgumentError(
                    "log_with must name a tracker where the accelerator has none, got None; pass for example "
                    '"tensorboard", or call accelerator.init_trackers(...) before'
                )
            return accelerator
        wanted = list(self.log_with) if isinstance(self.log_with, (list, tuple)) else [self.log_with]
        known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
        for name in wanted:
            if not isinstance(name, GeneralTracker) and str(name) not in known:
                raise ArgumentError(f"log_with must be one of {', '.join(known)}, got {name!r}; pass one of them")
        if accelerator is None:
            accelerator = Accelerator(cpu=learner.device.type == "cpu")
        found = filter_trackers(wanted, self.directory)
        missing = [str(name) for name in wanted if name not in found and str(name) not in map(str, found)]
        if missing:
            raise MissingExtraError(f"log_with={missing[0]!r} needs a package that is not installed; pip install it")
        accelerator.log_with = found
        accelerator.project_configuration.logging_dir = self.directory
        # A tracker that has failed, or was not started, fails at every call and keeps the ones after it from theirs.
        others = [tracker for tracker in accelerator.trackers if tracker not in self._own_trackers]
        accelerator.trackers = list(others)
        try:
            accelerator.init_trackers(self.run_name)
        except OSError:
            accelerator.trackers = others
            raise
        self._own_trackers = [tracker for tracker in accelerator.trackers if tracker not in others]
        return accelerator
