"""The picture of a range test."""

from typing import TYPE_CHECKING

import numpy as np

from cyclewise.drawing import Band, Chart, Line, Mark
from cyclewise.range_test import readings
from cyclewise.range_test.refusal import Refusal

if TYPE_CHECKING:
    from cyclewise.range_test.result import RangeTest


def chart(result: "RangeTest") -> Chart:
    """Describe the picture: loss against rate, sweep by sweep, with the suggestion and its interval, or the refusal."""
    whole, slow = result.curve.usable(), (result.curve, *result.close_ups)[-1].usable()
    lines = [Line("first sweep", whole.lr.tolist(), whole.loss.tolist(), role="muted", points=True)]
    if len(result.close_ups) > 1:
        middle = result.close_ups[0].usable()
        lines.append(Line("second sweep, closer", middle.lr.tolist(), middle.loss.tolist(), role="muted"))
    reason = (result.refusal or Refusal.NO_IMPROVEMENT).value
    title, caption = "Loss against learning rate", ""
    if result.max_lr is None:
        title += f": {reason}"
    elif result.is_clear:
        caption = "The rate to use lies in the last sweep's first valley, left of its lowest point."
    else:
        caption = "No valley is deeper than the noise: the rate to use lies left of where the losses rise."
    limits = None
    if len(slow.lr) >= readings.FEWEST_POINTS:
        reading = readings.read(slow.lr, slow.loss)
        if result.close_ups:
            lines.append(Line("last sweep, closest", slow.lr.tolist(), slow.loss.tolist(), points=True))
        lines.append(Line("last sweep, smoothed", slow.lr.tolist(), reading.smooth.tolist()))
        # The blow-up at the end may be a million times higher than what there is to see.
        low, high = float(np.min(slow.loss)), max(reading.start, float(np.median(whole.loss[:8])))
        margin = max(high - low, 3.0 * reading.noise, 1e-9 * abs(high))
        limits = (low - 0.1 * margin, high + 0.65 * margin)
    return Chart(
        title=title,
        x_label="learning rate (log scale)",
        y_label="loss (before each update)",
        lines=lines,
        bands=() if result.interval is None else (Band("interval of max_lr", *result.interval),),
        marks=() if result.max_lr is None else (Mark(f"max_lr {result.max_lr:.2g}", result.max_lr),),
        x_log=True,
        y_limits=limits,
        caption=caption,
        empty=f"no learning rate: {reason}",
    )
