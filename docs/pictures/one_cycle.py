"""One cycle on digits: the rate up and far down, the momentum against it, and the losses of the run."""

from functools import cache

import cyclewise as cw
from cyclewise.drawing import Chart, Line
from docs.pictures.digits import make_learner, seeded

NUM_EPOCHS = 20
MAX_LR = 0.4


@cache
def history(seed: int = 0) -> cw.History:
    """Return the record of the run."""
    with seeded(seed):
        return make_learner(seed).fit_one_cycle(NUM_EPOCHS, max_lr=MAX_LR, pct_start=0.3, moms=(0.95, 0.85))


def charts() -> list[Chart]:
    """Describe the picture."""
    record = history()
    steps = list(range(record.num_steps))
    x_label = "step (optimizer updates)"
    ends = [epoch.step for epoch in record.epochs]
    losses = [
        Line("validation", ends, [epoch.valid_loss or 0.0 for epoch in record.epochs]),
        Line("training, mean of the epoch", ends, [epoch.train_loss for epoch in record.epochs], role="secondary"),
    ]
    return [
        Chart("The rate", x_label, "learning rate", [Line("rate", steps, record.lr.tolist())]),
        Chart("The momentum", x_label, "momentum", [Line("momentum", steps, record.momentum.tolist())]),
        Chart("The losses of the run", x_label, "loss (log scale)", losses, y_log=True),
    ]


def worst_and_last() -> tuple[int, float, float, float]:
    """Return the epoch of the highest validation loss after the second, that loss, and both losses at the end."""
    epochs = history().epochs
    worst = max(range(2, NUM_EPOCHS), key=lambda epoch: epochs[epoch].valid_loss or 0.0)
    return worst + 1, epochs[worst].valid_loss or 0.0, epochs[-1].valid_loss or 0.0, epochs[-1].train_loss


def caption() -> str:
    """Say what the picture shows."""
    epoch, worst, valid, train = worst_and_last()
    return (
        f"{NUM_EPOCHS} epochs on digits, rate up to {MAX_LR:g}, momentum from 0.95 to 0.85 and back. From the third "
        f"epoch on the validation loss is highest in epoch {epoch}, {worst:.2g}, and ends at {valid:.2g}; the training "
        f"loss ends at {train:.1g}."
    )
