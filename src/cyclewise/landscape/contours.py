"""Contour lines of values on a grid: marching squares, the lines of one level joined by gaps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def contour(x: Sequence[float], y: Sequence[float], values: Floats, level: float) -> tuple[list[float], list[float]]:
    """Return the points of one level as a single line with NaN between its segments.

    Args:
        x: columns, shape [C], rising.
        y: rows, shape [R], rising.
        values: at the crossings, shape [R, C]; cells with a value that is not finite are left out.
        level: the value to follow.

    Returns:
        x and y of the points; each segment crosses one cell, placed by linear interpolation along its edges.

    Example:
        >>> contour([0.0, 1.0], [0.0, 1.0], np.array([[0.0, 1.0], [0.0, 1.0]]), 0.25)
        ([0.25, 0.25, nan], [0.0, 1.0, nan])
    """
    xs: list[float] = []
    ys: list[float] = []
    for row in range(len(y) - 1):
        for column in range(len(x) - 1):
            corners = [(x[column], y[row], values[row, column]),
                       (x[column + 1], y[row], values[row, column + 1]),
                       (x[column + 1], y[row + 1], values[row + 1, column + 1]),
                       (x[column], y[row + 1], values[row + 1, column])]  # fmt: skip
            crossings = _crossings(corners, level)
            # Two crossings are one segment; four are a saddle inside the cell, drawn as two.
            for start in range(0, len(crossings) - 1, 2):
                for point in crossings[start : start + 2]:
                    xs.append(point[0])
                    ys.append(point[1])
                xs.append(float("nan"))
                ys.append(float("nan"))
    return xs, ys


def _crossings(corners: list[tuple[float, float, float]], level: float) -> list[tuple[float, float]]:
    if not all(np.isfinite(value) for _, _, value in corners):
        return []
    points = []
    for (x0, y0, first), (x1, y1, second) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (first < level) != (second < level):
            share = float((level - first) / (second - first))
            points.append((x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
    return points
