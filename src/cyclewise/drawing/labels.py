"""Text in pictures: cleaned, cut to fit, and placed so that no two labels overlap.

The browser alone knows how wide text is, so widths are estimates on the safe side.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Width of a character in parts of the font size: above the mean of common sans-serif fonts, DejaVu's included.
_CHARACTER_WIDTH = 0.62
# Controls that HTML and XML forbid, and halves of surrogate pairs, which cannot be encoded.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_GAP = 10.0


@dataclass(frozen=True)
class Placed:
    """Where a label stands: its middle, and its row counted upwards from the plot; None for no room."""

    middle: float
    row: int | None


def clean(text: object) -> str:
    r"""Return `text` with what a page cannot hold replaced by the replacement character.

    >>> clean("a\x00b")
    'a\ufffdb'
    """
    return _FORBIDDEN.sub("\ufffd", str(text))


def width(text: str, font_size: float) -> float:
    """Return about how wide `text` is drawn, in the unit of `font_size`."""
    return sum(map(_ems, text)) * font_size


def fit(text: str, available: float, font_size: float) -> str:
    """Return `text`, cut with an ellipsis where it is wider than `available`.

    >>> fit("a rather long label", 60, 10)
    'a rather…'
    """
    if width(text, font_size) <= available:
        return text
    used, length = width("…", font_size), 0
    while length < len(text) and used + _ems(text[length]) * font_size <= available:
        used += _ems(text[length]) * font_size
        length += 1
    return text[:length].rstrip() + "…"


def wrap(text: str, available: float, font_size: float) -> list[str]:
    """Return `text` in lines of at most `available`; a word that is wider alone is cut.

    >>> wrap("a rather long label", 60, 10)
    ['a rather', 'long', 'label']
    """
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", font_size) <= available:
            lines[-1] += f" {word}"
        else:
            lines.append(fit(word, available, font_size))
    return lines


def place(
    positions: Sequence[float], widths: Sequence[float], *, low: float, high: float, most_rows: int
) -> list[Placed]:
    """Return where labels stand: each over its position, inside [low, high], in the lowest row where there is room.

    Args:
        positions: where each label would be centred.
        widths: how wide each label is.
        low: no label starts before this.
        high: no label ends after this.
        most_rows: a label that finds no room in so many rows is left out.

    >>> [label.row for label in place([10, 20, 200], [30, 30, 30], low=0, high=300, most_rows=3)]
    [0, 1, 0]
    """
    rows: list[list[tuple[float, float]]] = [[] for _ in range(most_rows)]
    result = []
    for position, size in zip(positions, widths, strict=True):
        middle = max(low + size / 2, min(position, high - size / 2))
        start, end = middle - size / 2 - _GAP / 2, middle + size / 2 + _GAP / 2
        row = next((n for n, taken in enumerate(rows) if all(end <= a or start >= b for a, b in taken)), None)
        if row is not None:
            rows[row].append((start, end))
        result.append(Placed(middle, row))
    return result


def _ems(character: str) -> float:
    # Beyond Latin, Greek and Cyrillic a character may be a full em wide.
    return 1.0 if character > "\u2e7f" else _CHARACTER_WIDTH
