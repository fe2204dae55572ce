"""Progress on standard error: a live bar in terminals and notebooks, nothing in log files and workers unless asked for.

Of several processes that run together only the first rank shows it. Standard output stays free for results
(``--json``). rich is imported when a bar is first drawn.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from cyclewise.errors import ArgumentError
from cyclewise.ranks import is_first_rank

Progress = Literal["auto"] | bool


class Bar:
    """One running bar; in a log file, one line per :meth:`tell` instead of a bar that moves."""

    def __init__(self, display: Any = None, task: Any = None, *, prints_lines: bool = False) -> None:
        self._display = display
        self._task = task
        self._prints_lines = prints_lines

    def advance(self, note: str = "") -> None:
        """Move on by one and show `note` beside the bar."""
        if self._display is not None:
            self._display.update(self._task, advance=1, note=note)

    def move_to(self, completed: int, note: str = "") -> None:
        """Show that `completed` steps are done, and `note` beside the bar."""
        if self._display is not None:
            self._display.update(self._task, completed=completed, note=note)

    def tell(self, text: str) -> None:
        """Print a line that stays, above the bar or in the log file."""
        if self._display is not None:
            self._display.console.print(text, markup=False, highlight=False)
        elif self._prints_lines:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn of something that the user should know, progress or not."""
        warnings.warn(text, UserWarning, stacklevel=2)

    @property
    def is_shown(self) -> bool:
        """Whether a moving bar is seen; a caller need not prepare notes otherwise."""
        return self._display is not None


@contextmanager
def progress_bar(description: str, total: int | None, progress: Progress = "auto") -> Iterator[Bar]:
    """Show a bar of `total` steps while the block runs.

    Args:
        description: what is running.
        total: number of steps; None where it is not known.
        progress: True shows it, False doesn't, "auto" shows it where standard error is a terminal or a notebook. Where
            True meets a standard error that is a file, lines are printed that stay readable there. Ranks other than the
            first show nothing.

    Raises:
        ArgumentError: `progress` is none of these.

    Example:
        >>> with progress_bar("range test", 3, progress=False) as bar:
        ...     bar.advance()
        ...     bar.is_shown
        False
    """
    if not _is_wanted(progress) or sys.stderr is None or not is_first_rank():
        yield Bar()
        return
    if not _is_live():
        print(description if total is None else f"{description}: {total} steps", file=sys.stderr, flush=True)
        yield Bar(prints_lines=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # What the caller prints goes above the bar at a terminal alone: into a file or a pipe it was sent by its owner.
    with Display(*columns, console=Console(stderr=True), redirect_stdout=_is_terminal(sys.stdout)) as display:
        task = display.add_task(description, total=total, note="")
        yield Bar(display, task)
        # A sweep that diverged, or a fit that was stopped, is done with fewer steps than it might have taken.
        display.update(task, total=display.tasks[0].completed)


def _is_live() -> bool:
    return _is_terminal(sys.stderr) or "ipykernel" in sys.modules


def _is_terminal(stream: Any) -> bool:
    # A stand-in for a stream may only write and flush, and a program without a console has None.
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # a ValueError where it is closed
        return False


def check_progress(progress: Any) -> None:
    """Raise :class:`ArgumentError` unless `progress` is True, False or "auto"."""
    if progress != "auto" and not isinstance(progress, bool):
        raise ArgumentError(f'progress must be "auto", True or False, got {progress!r}; pass False for silence')


def _is_wanted(progress: Progress) -> bool:
    check_progress(progress)
    return _is_live() if progress == "auto" else progress
