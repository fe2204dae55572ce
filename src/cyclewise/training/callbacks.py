"""Hooks into the training loop: empty methods to override."""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner


class Callback:
    """Override what you need; every hook gets the Learner.

    A hook may read anything and may change the model; it must not step the optimizer. An exception from a hook ends the
    fit and passes through unchanged.
    """

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Run before the first step of a fit of `total_steps` steps."""

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Run after step `step` of the fit (counted from 0); `loss` is a detached scalar, from before the update.

        Reading its value with ``loss.item()`` makes a GPU wait; do it rarely.
        """

    def on_epoch_end(self, learner: "Learner", epoch: "Epoch") -> None:
        """Run after the validation that ends an epoch."""

    def on_fit_end(self, learner: "Learner") -> None:
        """Run after the last step, also when the fit ended early."""
