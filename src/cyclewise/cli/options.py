"""What the commands have in common: arguments, and where their output goes.

With ``--json`` one JSON document is printed on standard output; all else goes to standard error. Of a command that
failed it is ``{"error": message, "error_type": class name}``.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cyclewise.cli import places, tables
from cyclewise.cli.advice import of_error
from cyclewise.cli.outcome import exit_status
from cyclewise.cli.streams import print_error_document, print_text, speaks, stdout_to_stderr, wait_for_all

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
        try:
            with exit_status(show_traceback=show_traceback, on_error=self._fail):
                places.check_file(self._option, self._html)
                with _warnings_as_sentences():
                    yield self
        finally:
            if self._is_finished:  # what was raised before may be this rank's alone
                wait_for_all()

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

    @property
    def columns(self) -> int | None:
        """Columns of the terminal that is printed on; None where it is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def say(self, text: str) -> None:
        """Print a sentence to read."""
        if not self._as_json:
            print_text(text)

    def note(self, text: str) -> None:
        """Print where something was written; to standard error, if JSON was asked for."""
        print_text(text, err=self._as_json)

    def show(self, table: "Table") -> None:
        """Print a table to read: fitted to the terminal, or in its own width where it goes to a file or a pipe."""
        self.say(tables.text(table, width=self.columns))

    def finish(self, values: Mapping[str, Any], records: "Sequence[Reportable]") -> None:
        """Print the JSON document or write the report, as asked for."""
        if self._html is not None and speaks():
            from cyclewise.report import write_html

            path = write_html(list(records), self._html)
            self.note(f"report: {path}")
        if self._as_json:
            print_text(json.dumps(values, allow_nan=False))
        self._is_finished = True

    def _fail(self, message: str, kind: str) -> None:
        # A fit that diverged has printed its document, with the error in it.
        if self._as_json and not self._is_finished:
            print_error_document(message, kind)


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Say cyclewise's own warnings as a command says its errors; those of the user's code show where they come from."""
    with warnings.catch_warnings():
        usual, own = warnings.showwarning, str(Path(__file__).parents[1])

        def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
            if filename.startswith(own):
                print_text(f"warning: {of_error(str(message))}", err=True)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def print_version(is_wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if is_wanted:
        from cyclewise import __version__

        print_text(f"cyclewise {__version__}")
        raise typer.Exit
