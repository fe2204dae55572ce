"""Hooks into the training loop: empty methods to override."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cyclewise._validation import describe, instance
from cyclewise.errors import ArgumentTypeError

if TYPE_CHECKING:
    from cyclewise.training.history import Epoch
    from cyclewise.training.learner import Learner
    from cyclewise.training.run import Run


class Callback:
    """Override what you need; every hook gets the Learner.

    A hook may read anything and may change the model; it must not step the optimizer. ``learner.stop(reason)`` ends the
    fit after the present step. An exception from a hook ends the fit and passes through unchanged.
    """

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Run before the first step of a fit of `total_steps` steps, also of one that is resumed."""

    def on_gradients(self, learner: "Learner", batches: Sequence[Any]) -> None:
        """Run when the gradients of a step are complete, before clipping and the update, with the step's batches.

        Gradients are still multiplied by the scale of a gradient scaler. An optimizer that needs a closure (LBFGS) has
        several gradients in a step, and a scaler may skip the update; there is no `on_step_end` then.
        """

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


def check_callbacks(callbacks: Any) -> None:
    """Raise :class:`ArgumentTypeError` unless `callbacks` is a list or tuple of callbacks."""
    if not isinstance(callbacks, (list, tuple)):
        raise ArgumentTypeError(f"callbacks must be a list, got {describe(callbacks)}; pass [callback]")
    for callback in callbacks:
        instance("callbacks", callback, Callback, "a list of callbacks, made from classes that inherit cw.Callback",
                 way_out="pass for example [cw.EarlyStopping()]")  # fmt: skip


def overriding(callbacks: Sequence[Callback], hook: str) -> list[Callback]:
    """Return the callbacks that have a `hook` of their own; the others need not be called at every step."""
    return [callback for callback in callbacks if getattr(type(callback), hook) is not getattr(Callback, hook)]


def end_all(callbacks: Sequence[Callback], learner: "Learner", run: "Run") -> None:
    """End the callbacks of a fit, whatever one of them raises: what another was to write would be lost.

    Ctrl-C here has cut the fit off: for those after it ``learner.run`` is not None then, as wherever a fit is cut off,
    so that nobody saves as ended what has not.
    """

    def end(callback: Callback) -> None:
        try:
            callback.on_fit_end(learner)
        except KeyboardInterrupt:
            learner.run = run
            raise

    with ExitStack() as stack:
        stack.callback(setattr, learner, "run", None)
        for callback in reversed(callbacks):
            stack.callback(end, callback)
