"""How a search looks: loss over evaluations, and how far apart the candidates lie."""

from typing import TYPE_CHECKING

import numpy as np

from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.start.search import UNTOUCHED

if TYPE_CHECKING:
    from cyclewise.start.result import StartSearch

_X_LABEL = "evaluation (in the order asked for)"
_WINDOW = 10
_MOST_LOST = 5


def section(record: "StartSearch") -> Section:
    """Return the record's part of a report."""
    return Section(
        title="Search for a starting point",
        conclusion=_conclusion(record),
        charts=charts(record),
        tables=[_comparison(record), *_lost(record)],
        settings={name: str(value) for name, value in record.settings.items()},
    )


def charts(record: "StartSearch") -> list[Chart]:
    """Return the pictures."""
    drawn = [_losses(record)]
    if len(record.positions) > _WINDOW and record.positions[0]:
        drawn.append(_spread(record))
    return drawn


def spread_over_time(positions: "np.ndarray", window: int) -> list[float]:
    """Return the root mean square distance of the last `window` positions to their mean, per coordinate.

    Args:
        positions: where candidates lie, ``[n, d]``.
        window: how many of them count.

    >>> spread_over_time(np.array([[0.0], [2.0], [0.0], [2.0]]), 2)
    [1.0, 1.0, 1.0]
    """
    parts = [positions[end - window : end] for end in range(window, len(positions) + 1)]
    return [float(np.sqrt(part.var(axis=0).mean())) for part in parts]


def _losses(record: "StartSearch") -> Chart:
    told = [e for e in record.evaluations if e.loss is not None]
    x = [e.index for e in told]
    y = [float(e.loss) for e in told if e.loss is not None]
    lines = [
        Line("candidate", x, y, role="muted", points=True),
        Line("best so far", x, np.minimum.accumulate(y).tolist() if y else []),
    ]
    ends = [0, max(1, record.evaluations[-1].index)] if record.evaluations else [0, 1]
    for name, spread in (("untouched start", record.baseline), ("best re-draw", record.redraw)):
        if spread is not None:
            lines.append(Line(name, ends, [spread.value] * 2, role="secondary", dashed=name == "best re-draw"))
    return Chart(
        title="Loss over evaluations",
        x_label=_X_LABEL,
        y_label="objective",
        lines=lines,
        y_limits=_limits(y, record),
        caption="Each dot is a candidate's first evaluation. A search that works leaves the untouched start behind and "
        "flattens out; one that still falls at its end deserves a larger budget.",
    )


def _limits(losses: list[float], record: "StartSearch") -> tuple[float, float] | None:
    # A few candidates may be a thousand times worse than what there is to see.
    shown = [*losses, *(s.value for s in (record.baseline, record.redraw) if s is not None)]
    if len(losses) < _WINDOW:
        return None
    low, middle = min(shown), float(np.median(losses))
    references = [s.value for s in (record.baseline, record.redraw) if s is not None]
    high = min(max(losses), max(middle + 2 * (middle - low), *references))
    margin = 0.05 * (high - low) or 1e-9
    return low - margin, high + margin


def _spread(record: "StartSearch") -> Chart:
    window = record.population or _WINDOW
    values = spread_over_time(np.array(record.positions), min(window, len(record.positions) // 2))
    first = len(record.positions) - len(values)
    return Chart(
        title="Spread of the candidates",
        x_label=_X_LABEL,
        y_label="root mean square distance to the mean",
        lines=[Line("spread", list(range(first, len(record.positions))), values)],
        caption="Each coordinate runs from -1 to 1; 0.58 is a spread over the whole range. It falls when the search "
        "closes in on one place.",
    )


def _conclusion(record: "StartSearch") -> str:
    text = f"{str(record)[0].upper()}{str(record)[1:]}."
    if record.best_validation is not None and record.baseline_validation is not None:
        text += (
            f" On data that the search never saw: {record.best_validation}, "
            f"untouched {record.baseline_validation}"
            + (f", best re-draw {record.redraw_validation}" if record.redraw_validation is not None else "")
            + "."
        )
    return f"{text} {record.note[0].upper()}{record.note[1:]}." if record.note else text


def _comparison(record: "StartSearch") -> Table:
    rows = []
    for name, kind in (("found start", "best"), ("untouched start", "baseline"), ("best random re-draw", "redraw")):
        cells = []
        for field in (kind, f"{kind}_validation"):
            spread = getattr(record, field)
            reason = record.unavailable.get(field)
            cells.append(str(spread) if spread is not None else f"none: {reason.value}" if reason else "none")
        rows.append([name, *cells])
    return Table(["start", "objective", "validation"], rows, caption="Mean ± standard error over repetitions.")


def _lost(record: "StartSearch") -> list[Table]:
    lost = [e for e in record.evaluations if e.lost]
    if not lost:
        return []
    rows = [["untouched" if e.index == UNTOUCHED else str(e.index), e.lost] for e in lost[:_MOST_LOST]]
    return [Table(["candidate", "why it was lost"], rows, caption=f"{len(lost)} candidates were lost.")]
