"""What the commands have in common: arguments, and where their output goes.

With ``--json`` one JSON document is printed on standard output; all else goes to standard error. Of a command that
failed it is ``{"error": message, "error_type": class name}``.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cyclewise.cli import places, tables
from cyclewise.cli.outcome import exit_status
from cyclewise.cli.streams import stdout_to_stderr

if TYPE_CHECKING:
    from cyclewise.drawing import Table
    from cyclewise.report import Reportable

Target = Annotated[
    str, typer.Argument(metavar="FILE:FUNCTION", help="A function seed -> Learner, for example train.py:make_learner.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed handed to the function.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, also of an error.")]
Html = Annotated[Path | None, typer.Option(metavar="PATH", help="Write a report to this file.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the whole traceback of an error.")]


class Output:
    """Where a command's results go: a table and sentences to read, or one JSON document.

    Args:
        as_json: print JSON.
        html: file to write a report to.
        option: what the command calls this file.
    """

    def __init__(self, *, as_json: bool, html: Path | None, option: str = "html") -> None:
        self._as_json = as_json
        self._html = html
        self._option = option
        self._is_finished = False

    @contextmanager
    def command(self, *, show_traceback: bool | None) -> Iterator["Output"]:
        """Run a command: an exception becomes a message, an exit status and, where JSON was asked for, the document.

        Args:
            show_traceback: the command's option --traceback; None where it has none.
        """
        with exit_status(show_traceback=show_traceback, on_error=self._fail):
            places.check_file(self._option, self._html)
            yield self

    @contextmanager
    def quiet_stdout(self) -> Iterator[None]:
        """Send what the user's own code prints to standard error while the block runs, if JSON was asked for.

        That is also what a child process or a library in C prints.
        """
        if not self._as_json:
            yield
            return
        with stdout_to_stderr():
            yield

    def say(self, text: str) -> None:
        """Print a sentence to read."""
        if not self._as_json:
            _print(text)

    def note(self, text: str) -> None:
        """Print where something was written; to standard error, if JSON was asked for."""
        _print(text, err=self._as_json)

    def show(self, table: "Table") -> None:
        """Print a table to read: fitted to the terminal, or in its own width where it goes to a file or a pipe."""
        is_terminal = sys.stdout.isatty()
        self.say(tables.text(table, width=shutil.get_terminal_size().columns if is_terminal else None))

    def finish(self, values: Mapping[str, Any], records: "Sequence[Reportable]") -> None:
        """Print the JSON document or write the report, as asked for."""
        if self._html is not None:
            from cyclewise.report import write_html

            path = write_html(list(records), self._html)
            self.note(f"report: {path}")
        if self._as_json:
            _print(json.dumps(values, allow_nan=False))
        self._is_finished = True

    def _fail(self, message: str, kind: str) -> None:
        # A fit that diverged has printed its document, with the error in it.
        if self._as_json and not self._is_finished:
            with suppress(OSError):  # it may be standard output itself that failed
                _print(json.dumps(error_values(message, kind)))


def error_values(message: str, kind: str) -> dict[str, str]:
    """Return what a document says of an error."""
    return {"error": message, "error_type": kind}


def _print(text: str, *, err: bool = False) -> None:
    try:
        typer.echo(text, err=err)
    except BrokenPipeError:
        # Who read it has seen enough (`| head -1`). What else was asked for, such as a report, is wanted all the same.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), (sys.stderr if err else sys.stdout).fileno())


def print_version(is_wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if is_wanted:
        from cyclewise import __version__

        _print(f"cyclewise {__version__}")
        raise typer.Exit
