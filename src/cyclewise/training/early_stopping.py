"""End a fit when a score has stopped improving."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cyclewise._validation import non_negative, one_of, whole
from cyclewise.errors import ArgumentError
from cyclewise.training.callbacks import Callback
from cyclewise.training.direction import lower_is_better

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner


class EarlyStopping(Callback):
    """End the fit after `patience` epochs without an improvement.

    A policy that falls to its end, such as one-cycle, gains most in its last steps: stopping it early gives that up.

    Args:
        monitor: "valid_loss", "train_loss" or the name of a metric.
        patience: epochs without improvement before the fit ends, at least 1.
        min_delta: what counts as an improvement, in the score's own unit.
        mode: "min" where lower is better, "max" where higher is; None: what its name tells ("rmse" falls), and "max"
            where that is nothing.

    Raises:
        ArgumentError: an argument has an impossible value, or an epoch has no such score.

    Example:
        >>> import torch, cyclewise as cw
        >>> data = cw.Data([(torch.ones(4, 1), torch.ones(4).long())])
        >>> learn = cw.Learner(torch.nn.Linear(1, 2), data, progress=False)
        >>> stop = cw.EarlyStopping("train_loss", patience=2, min_delta=100.0)
        >>> learn.fit(cw.Constant(lr=0.1, total_steps=50), callbacks=[stop]).num_steps
        3
    """

    def __init__(
        self, monitor: str = "valid_loss", *, patience: int = 5, min_delta: float = 0.0, mode: str | None = None
    ) -> None:
        self.monitor = monitor
        self.patience = whole("patience", patience, minimum=1, way_out="it counts epochs")
        self.min_delta = non_negative("min_delta", min_delta, way_out="0.0 counts every improvement")
        is_lower = lower_is_better(monitor) if mode is None else one_of("mode", mode, ("min", "max")) == "min"
        self._sign = 1.0 if is_lower else -1.0
        self._best = math.inf
        self._num_worse = 0

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Forget the fit before.

        Raises:
            ArgumentError: the epochs of this fit will have no such score.
        """
        del total_steps
        known = ["train_loss"]
        if learner.data.valid_loader is not None:
            known += ["valid_loss", *learner.metrics]
        self._check(known)
        self._best, self._num_worse = math.inf, 0

    def on_epoch_end(self, learner: "Learner", epoch: "Epoch") -> None:
        """Compare with the best epoch so far."""
        scores = {"train_loss": epoch.train_loss, "valid_loss": epoch.valid_loss, **epoch.metrics}
        score = scores.get(self.monitor)
        if score is None:
            self._check([name for name, value in scores.items() if value is not None])
            return
        if self._sign * score < self._best - self.min_delta:
            self._best, self._num_worse = self._sign * score, 0
            return
        self._num_worse += 1
        if self._num_worse >= self.patience:
            learner.stop(f"{self.monitor} has not improved for {self.patience} epochs")

    def _check(self, known: Iterable[str]) -> None:
        if self.monitor not in known:
            raise ArgumentError(f"monitor must be one of {sorted(known)}, got {self.monitor!r}; pass one of them")

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the epochs since."""
        return {"best": self._best, "num_worse": self._num_worse}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self._best, self._num_worse = state["best"], state["num_worse"]
