"""Watching a fit: the watch for loops of one's own, as a callback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cyclewise.landscape import LoopWatch
from cyclewise.training.callbacks import Callback

if TYPE_CHECKING:
    from cyclewise.training.learner import Learner


class Watch(LoopWatch, Callback):
    """Record gradient norm, update ratio, gradient noise scale and sharpness while a model is trained.

    In a fit it is a callback, and the pictures of the history show what it has recorded under the rate. In a loop of
    your own, ``start`` it, then call ``step`` once per update, between the last backward pass and clipping or
    ``optimizer.step()``. Either way ``record`` holds the :class:`Watched`, of the last fit or of the loop.

    A measurement leaves no trace: a watched run ends with the bits of one that is not. What is measured at which step
    follows from the count, not from the clock: a run that is repeated or resumed has the same record.

    Args:
        every: steps between two measurements of gradient norm and update ratio.
        noise_every: steps between two of the gradient noise, each a forward and a backward pass; "auto": as often as
            a tenth of `most_fraction` allows, every 1200 steps by default; None: never.
        sharpness_every: steps between two of the sharpness, each `num_products` Hessian products; "auto": as often as
            0.3 of `most_fraction` allows, every 3000 steps by default; None: never. To see the edge of stability in a
            short run pass a number such as 20, and pay for it.
        num_products: Hessian products per sharpness, at least 2.
        most_fraction: the part of the training time that the intervals left to "auto" are chosen for, by counted
            passes and products.
        num_positions: the most positions of the run to keep in `path`, evenly spaced, which :meth:`Learner.diagnose`
            draws; none of models of which so many copies take more than 64 MB. 0: none.

    Raises:
        ArgumentError: an argument has an impossible value.

    Source: sharpness and its limit: Cohen et al., arXiv:2103.00065 and, for Adam, arXiv:2207.14484; noise scale:
    McCandlish et al., arXiv:1812.06162, appendix A.1.

    Example:
        >>> import torch, cyclewise as cw
        >>> _ = torch.manual_seed(0)
        >>> data = cw.Data.from_arrays(torch.randn(64, 4), torch.arange(64) % 2, batch_size=16)
        >>> learn = cw.Learner(torch.nn.Linear(4, 2), data, progress=False)
        >>> history = learn.fit(cw.Constant(lr=0.1, total_steps=40), callbacks=[cw.Watch(every=5, sharpness_every=20)])
        >>> history.watched.step.tolist()
        [4, 9, 14, 19, 24, 29, 34, 39]
        >>> bool(history.watched.sharpness[-1] < history.watched.sharpness_limit[-1])
        True
    """

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Begin a new record."""
        del total_steps
        run, runtime = learner.run, learner.runtime
        assert run is not None
        self._forget()
        self.start(
            learner.model,
            learner.optimizer,
            learner.loss_fn,
            scaler=runtime.scaler,
            autocast_dtype=runtime.autocast_dtype,
        )
        run.recorder.watched = lambda: self.record

    def on_gradients(self, learner: "Learner", batches: Sequence[Any]) -> None:
        """Measure what is due at the step."""
        del learner
        self.step(*batches)

    def on_fit_end(self, learner: "Learner") -> None:
        """Let go of the model, and leave its path with the Learner."""
        self.stop()
        learner.remember_path(self.path)
