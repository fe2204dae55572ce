"""Progress on standard error: a live bar in terminals and notebooks, nothing in log files and workers unless asked for.

Standard output stays free for results (``--json``). rich is imported when a bar is first drawn.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from cyclewise.errors import ArgumentError

Progress = Literal["auto"] | bool


class Bar:
    """One running bar; :meth:`advance` is cheap and may be called at every step."""

    def __init__(self, display: Any = None, task: Any = None) -> None:
        self._display = display
        self._task = task

    def advance(self, note: str = "") -> None:
        """Move on by one and show `note` beside the bar."""
        if self._display is not None:
            self._display.update(self._task, advance=1, note=note)

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees it; a caller need not prepare notes otherwise."""
        return self._display is not None


@contextmanager
def progress_bar(description: str, total: int | None, progress: Progress = "auto") -> Iterator[Bar]:
    """Show a bar of `total` steps while the block runs.

    Args:
        description: what is running.
        total: number of steps; None where it is not known.
        progress: True shows it, False doesn't, "auto" shows it where standard error is a terminal or a notebook.

    Raises:
        ArgumentError: `progress` is none of these.

    Example:
        >>> with progress_bar("range test", 3, progress=False) as bar:
        ...     bar.advance()
        ...     bar.is_shown
        False
    """
    if not _is_wanted(progress):
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Display(*columns, console=Console(stderr=True)) as display:
        yield Bar(display, display.add_task(description, total=total, note=""))


def _is_wanted(progress: Progress) -> bool:
    if progress == "auto":
        return sys.stderr.isatty() or "ipykernel" in sys.modules
    if not isinstance(progress, bool):
        raise ArgumentError(f'progress must be "auto", True or False, got {progress!r}; pass False for silence')
    return progress
