"""SGDR on digits: cosine annealing, restarted warm, with cycles of 2, 4 and 8 epochs."""

from functools import cache

import numpy as np

import cyclewise as cw
from cyclewise.drawing import Chart, Line
from docs.pictures.digits import make_learner, seeded

T_0, T_MULT, NUM_CYCLES = 2, 2, 3
MAX_LR = 0.3


@cache
def history() -> cw.History:
    """Return the record of the run."""
    with seeded(0):
        learn = make_learner(0)
        return learn.fit_sgdr(T_0=T_0, T_mult=T_MULT, num_cycles=NUM_CYCLES, max_lr=MAX_LR)


def ends() -> list[int]:
    """Return the steps at which cycles end."""
    per_epoch = history().epochs[0].step
    return (np.cumsum([T_0 * T_MULT**k for k in range(NUM_CYCLES)]) * per_epoch).tolist()


def loss_around(step: int, width: int = 15) -> tuple[float, float]:
    """Return the mean training loss of the steps before and after a restart."""
    loss = history().loss
    return float(loss[step - width : step].mean()), float(loss[step : step + width].mean())


def smoothed(loss: np.ndarray, width: int = 15) -> list[float]:
    """Return the mean of the last steps, at every step."""
    return [float(loss[max(0, i + 1 - width) : i + 1].mean()) for i in range(len(loss))]


def charts() -> list[Chart]:
    """Describe the picture."""
    record = history()
    steps = list(range(record.num_steps))
    x_label = "step (optimizer updates)"
    losses = [Line("mean of the last 15 steps", steps, smoothed(record.loss))]
    return [
        Chart("The rate: SGDR", x_label, "learning rate", [Line("rate", steps, record.lr.tolist())]),
        Chart("The loss of a run with it", x_label, "training loss (log scale)", losses, y_log=True),
    ]


def caption() -> str:
    """Say what the picture shows."""
    (before, after), (before2, after2) = (loss_around(step) for step in ends()[:2])
    last = float(history().loss[-15:].mean())
    return (
        f"Cycles of 2, 4 and 8 epochs on digits. The training loss, over 15 steps, is {before:.2g} before the first "
        f"restart and {after:.2g} after it, {before2:.2g} before the second and {after2:.2g} after it, and {last:.1g} "
        "at the end."
    )
