"""Pictures: what they say (:mod:`~cyclewise.drawing.chart`) and how they are drawn (figure, svg)."""

from cyclewise.drawing.chart import Band, Chart, Line, Mark, Section, Table

__all__ = ["Band", "Chart", "Line", "Mark", "Section", "Table"]
