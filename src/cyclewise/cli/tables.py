"""A table as text to read: a grid where there is room for one, else each row as a block of lines; never cut."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclewise.drawing import Table

_INDENT = "  "
# Of rich's grid, for n columns: a blank on both sides of every cell, n + 1 lines.
_PER_COLUMN, _BESIDES = 3, 1


def text(table: "Table", *, width: int | None) -> str:
    """Return the table, in lines of at most `width` characters where its longest word allows it.

    A grid breaks headings between words, and cells not at all: of a number, half is worse than none.

    Args:
        table: what to show.
        width: columns of the terminal; None takes as many as the table needs.

    Example:
        >>> from cyclewise.drawing import Table
        >>> table = Table(["policy", "highest rate"], [["one-cycle", "0.0333"]], caption="One seed.")
        >>> print(text(table, width=15))
        policy: one-cycle
          highest rate:
          0.0333
        <BLANKLINE>
        One seed.
    """
    from rich.cells import cell_len

    cells = [max((cell_len(line) for row in table.rows for line in row[i].splitlines()), default=0)
             for i in range(len(table.columns))]  # fmt: skip
    whole = [max(cell_len(column), cell) for column, cell in zip(table.columns, cells, strict=True)]
    words = [max(*map(cell_len, column.split()), cell) for column, cell in zip(table.columns, cells, strict=True)]
    for widths in (whole, words):
        if width is None or sum(widths) + _PER_COLUMN * len(widths) + _BESIDES <= width:
            return _grid(table, widths)
    return _blocks(table, width or 0)


def _grid(table: "Table", widths: list[int]) -> str:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(caption=Text(table.caption))
    for i, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        grid.add_column(Text(column), justify="left" if i == 0 else "right", width=width)
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=sum(widths) + _PER_COLUMN * len(widths) + _BESIDES)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip("\n")


def _blocks(table: "Table", width: int) -> str:
    def wrapped(line: str, indent: str) -> list[str]:
        return textwrap.wrap(
            line, max(1, width), initial_indent=indent, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

    lines = []
    for row in table.rows:
        for i, (column, cell) in enumerate(zip(table.columns, row, strict=True)):
            if cell:
                lines += wrapped(f"{column}: {cell}", _INDENT if i else "")
        lines.append("")
    return "\n".join([*lines, *wrapped(table.caption, "")]).rstrip("\n")
