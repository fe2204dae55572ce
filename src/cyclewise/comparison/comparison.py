"""The record of a comparison of policies: a row for each, with what can be said about it and what cannot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cyclewise._validation import reading_record
from cyclewise.drawing import Section
from cyclewise.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cyclewise.comparison.rows import Question, Row

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Policies against a baseline, on the same seeds.

    Attributes:
        rows: one per policy, in the order given; each with .name, .mean, .std_error, .difference, .p_value and more.
        question: metric and its direction, baseline, seeds, target.
        is_paired: whether all runs of a seed began with the same weights and the same batches.
        settings: what is needed to repeat it.

    Example:
        >>> from cyclewise.comparison.rows import Question, Row
        >>> record = Comparison((Row("fixed", mean=0.5, difference=0.0),), Question("accuracy", False, "fixed", (0,)))
        >>> print(record)
        accuracy over 1 seed: fixed 0.5
        >>> Comparison.from_dict(record.to_dict()) == record
        True
    """

    rows: "tuple[Row, ...]"
    question: "Question"
    is_paired: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparison) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.rows, self.question))

    def row(self, name: str) -> "Row":
        """Return the row of a policy.

        Raises:
            ArgumentError: there is no policy of this name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        listed = ", ".join(repr(row.name) for row in self.rows)
        raise ArgumentError(f"name must be a policy of this comparison, got {name!r}; it has {listed}")

    @property
    def num_seeds(self) -> int:
        """Runs per policy."""
        return len(self.question.seeds)

    @property
    def too_few_seeds(self) -> str:
        """Why so few seeds cannot give a verdict, and how many it needs; empty where they are enough."""
        from cyclewise.comparison.rows import too_few_seeds

        return too_few_seeds(self.question, len(self.rows) - 1)

    def __str__(self) -> str:
        parts = []
        for row in self.rows:
            if row.mean is None:
                parts.append(f"{row.name} {row.verdict}")
                continue
            error = "" if row.std_error is None else f" ± {row.std_error:.2g}"
            p_value = "" if row.p_value is None else f" (p = {row.p_value:.2g})"
            parts.append(f"{row.name} {row.mean:.4g}{error}{p_value}")
        return (
            f"{self.question.metric} over {self.num_seeds} seed{'' if self.num_seeds == 1 else 's'}: {', '.join(parts)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "record": "Comparison",
            "version": _VERSION,
            "rows": [row.to_dict() for row in self.rows],
            "question": {**vars(self.question), "seeds": list(self.question.seeds)},
            "is_paired": self.is_paired,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Comparison":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no comparison of this version.
        """
        from cyclewise.comparison.rows import Question, Row

        with reading_record(values, "Comparison", _VERSION):
            return cls(
                tuple(Row.from_dict(row) for row in values["rows"]),
                Question(**{**values["question"], "seeds": tuple(values["question"]["seeds"])}),
                values["is_paired"],
                dict(values["settings"]),
            )

    def section(self) -> Section:
        """Return this record's part of a report: the verdicts in words, then pictures and tables."""
        from cyclewise.comparison.pictures import section

        return section(self)

    def plot(self) -> "Figure":
        """Draw the differences with their intervals and each policy's course, as one matplotlib figure."""
        from cyclewise.comparison.pictures import charts
        from cyclewise.drawing.figure import draw

        return draw(charts(self))

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())
