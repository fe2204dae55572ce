"""``learn.sched``: the article's pictures of the last range test and the last fit."""

from typing import TYPE_CHECKING

from cyclewise.drawing import Chart, Line
from cyclewise.errors import ArgumentError
from cyclewise.range_test import RangeTest
from cyclewise.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Sched:
    """Pictures of what a Learner did last.

    Args:
        range_test: its last range test, if any.
        history: its last fit, if any.
        shows_fit: whether the fit came after the range test.
    """

    def __init__(self, range_test: RangeTest | None, history: History | None, *, shows_fit: bool) -> None:
        self._range_test = range_test
        self._history = history
        self._shows_fit = shows_fit

    def plot_lr(self) -> "Figure":
        """Draw the rate over the steps of the last `lr_find` or fit, and the momentum where the policy moves it.

        The sweeps of a range test come one after the other.

        Raises:
            ArgumentError: nothing has been run yet.
        """
        from cyclewise.drawing.figure import draw

        if self._history is not None and (self._shows_fit or self._range_test is None):
            return draw(self._history.rate_charts())
        found = self._found()
        lr = [rate for curve in (found.curve, *found.close_ups) for rate in curve.lr.tolist()]
        reason = "no step was made" if found.refusal is None else f"no learning rate: {found.refusal.value}"
        chart = Chart(
            "Learning rate",
            "step (optimizer updates)",
            "learning rate (log scale)",
            [Line("rate", list(range(len(lr))), lr)],
            y_log=True,
            empty=reason,
        )
        return draw([chart])

    def plot(self) -> "Figure":
        """Draw loss against rate: of the last `lr_find`, or of the last fit where there was none.

        Raises:
            ArgumentError: nothing has been run yet.
        """
        if self._range_test is None and self._history is not None:
            from cyclewise.drawing.figure import draw

            lr, loss = self._history.lr.tolist(), self._history.loss.tolist()
            line = Line("loss of each step", lr, loss, points=True)
            return draw([Chart("Loss against learning rate", "learning rate", "loss (before each update)", [line])])
        return self._found().plot()

    def plot_loss(self) -> "Figure":
        """Draw the losses of the last fit over its steps: of each step, and of training and validation per epoch.

        Raises:
            ArgumentError: nothing has been fitted yet.
        """
        from cyclewise.drawing.figure import draw

        if self._history is None:
            raise ArgumentError("plot_loss() needs a fit, got none; call learn.fit_one_cycle() first")
        return draw(self._history.charts()[:1])

    def _found(self) -> RangeTest:
        if self._range_test is None:
            raise ArgumentError(
                "sched must have something to draw, got no run yet; call learn.lr_find() or a fit first"
            )
        return self._range_test
