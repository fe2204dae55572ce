"""Hooks into the training loop: empty methods to override."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner


class Callback:
    """Override what you need; every hook gets the Learner.

    A hook may read anything and may change the model; it must not step the optimizer. ``learner.stop(reason)`` ends the
    fit after the present step. An exception from a hook ends the fit and passes through unchanged.
    """

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Run before the first step of a fit of `total_steps` steps, also of one that is resumed."""

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Run after step `step` of the fit (counted from 0); `loss` is a detached scalar, from before the update.

        Reading its value with ``loss.item()`` makes a GPU wait; do it rarely.
        """

    def on_validation_start(self, learner: "Learner") -> None:
        """Run before the validation that ends an epoch."""

    def on_validation_end(self, learner: "Learner") -> None:
        """Run after it, also where it raised."""

    def on_epoch_end(self, learner: "Learner", epoch: "Epoch") -> None:
        """Run after the validation that ends an epoch."""

    def on_interrupt(self, learner: "Learner") -> None:
        """Run when Ctrl-C ends the fit; the model is as it was after the last whole step."""

    def on_fit_end(self, learner: "Learner") -> None:
        """Run after the last step, also when the fit ended early or raised."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold to go on: tensors, numbers, strings and containers of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned, when a fit is resumed; after `on_fit_start`."""
