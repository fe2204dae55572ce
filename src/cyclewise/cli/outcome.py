"""How a command ends: the exit status, and one message instead of a traceback."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from cyclewise.cli import advice
from cyclewise.cli.streams import print_text
from cyclewise.errors import (
    CheckpointError,
    CyclewiseError,
    DivergedError,
    MissingExtraError,
    SuggestionError,
    WorkerError,
)

FAILED, USAGE, REFUSED = 1, 2, 3
_OWN = f"{Path(__file__).parent}{os.sep}"


class UserCodeError(Exception):
    """The user's own file or function raised; the cause says what.

    Args:
        what: which code raised.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@contextmanager
def exit_status(
    *, show_traceback: bool | None, on_error: Callable[[str, str], None] = lambda message, kind: None
) -> Iterator[None]:
    """Turn an exception of the block into a message on standard error and an exit status.

    Args:
        show_traceback: the command's option --traceback; None where it has none.
        on_error: called with the message and the name of the exception's class.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        print_text("interrupted", err=True)
        on_error("interrupted", KeyboardInterrupt.__name__)
        raise
    except (Exception, SystemExit) as error:  # the user's own sys.exit() says nothing of what became of the command
        if show_traceback:
            traceback.print_exception(error, file=sys.stderr)
        message = _message(error, show_traceback)
        print_text(f"error: {message}", err=True)
        on_error(message, type(_cause(error)).__name__)
        raise typer.Exit(_status(error)) from None


def _status(error: BaseException) -> int:
    if isinstance(error, SuggestionError):
        return REFUSED
    is_usage = isinstance(error, CyclewiseError) and not isinstance(
        error, (DivergedError, CheckpointError, WorkerError, MissingExtraError)
    )
    return USAGE if is_usage else FAILED


def _cause(error: BaseException) -> BaseException:
    """Return what the message is about: of an error that only says whose code it was, the error itself."""
    return error if isinstance(error, CyclewiseError) else error.__cause__ or error


def _message(error: BaseException, show_traceback: bool | None) -> str:
    if isinstance(error, CyclewiseError):
        return advice.of_error(str(error))
    cause = _cause(error)
    said, where = _said_and_where(cause)
    if isinstance(cause, SystemExit):
        what = error.what if isinstance(error, UserCodeError) else "the code that was run"
        code = "" if cause.code is None else repr(cause.code)
        return f"{what} called sys.exit({code}){where}; leave that out, or put it under if __name__ == '__main__'"
    what = f"{error.what} raised " if isinstance(error, UserCodeError) else ""
    hint = "" if show_traceback is not False else "; run it again with --traceback to see how it got there"
    return f"{what}{type(cause).__name__}: {said}{where}{hint}"


def _said_and_where(cause: BaseException) -> tuple[str, str]:
    """Return what an exception says, and in which file and line the code that raised it stands."""
    # Python's parser raises from the import, and names only the end of the path.
    if isinstance(cause, SyntaxError) and cause.filename and os.path.isfile(cause.filename):
        return str(cause.msg), f" ({cause.filename}, line {cause.lineno})"
    frames = traceback.extract_tb(cause.__traceback__)
    # The import, and the command that runs the code, say nothing of the code.
    of_code = [frame for frame in frames if not frame.filename.startswith(("<frozen ", _OWN))]
    frame = (of_code or frames)[-1]
    return str(cause), f" ({frame.filename}, line {frame.lineno})"
