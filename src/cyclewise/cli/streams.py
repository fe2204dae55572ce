"""What is printed, and standard output kept for the result: what anything else prints goes to standard error.

Python's ``print`` is the smaller part of it. Libraries in C and child processes write to the file descriptor itself.
Of several processes that torchrun started only the first rank prints results: they are the same on all.
"""

import ctypes
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import typer

from cyclewise.cli.characters import fitting

_OUT, _ERR = 1, 2


class _Patient(io.FileIO):
    """A descriptor to write to that takes a reader who went for one who has seen enough (`| head -1`)."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _send_nowhere(self.fileno())
            return super().write(data)


def patient(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream to the same place, for all that is printed: its reader may go, and it writes every character."""
    stream.reconfigure(errors="replace")
    if stream.isatty():  # nobody goes from there
        return stream
    try:
        raw = _Patient(stream.fileno(), "wb", closefd=False)
    except OSError:  # a stand-in that is no file
        return stream
    stream.flush()
    # As `python -u` does, which has no buffer.
    buffer: Any = raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer, stream.encoding, "replace", line_buffering=stream.line_buffering, write_through=stream.write_through
    )


def _send_nowhere(descriptor: int) -> None:
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), descriptor)


def speaks() -> bool:
    """Return whether this process prints results and writes reports: of several ranks the first alone."""
    if "torch" not in sys.modules and "RANK" not in os.environ:  # one process, and torch would take a second to say so
        return True
    from cyclewise.ranks import is_first_rank

    return is_first_rank()


def wait_for_all() -> None:
    """Wait until every rank has got here: torchrun stops the others when one ends with a status above 0."""
    if "torch" in sys.modules:
        from cyclewise.ranks import gathered

        gathered(None)


def print_text(text: str, *, err: bool = False) -> None:
    """Print a text, with other signs for those that the stream cannot write; a reader that went is no error.

    Standard error is every rank's, for what went wrong on it.
    """
    if not err and not speaks():
        return
    stream = sys.stderr if err else sys.stdout
    try:
        typer.echo(fitting(text, getattr(stream, "encoding", None)), err=err)
    except BrokenPipeError:
        # Who read it has seen enough. What else was asked for, such as a report, is wanted all the same.
        _send_nowhere(stream.fileno())


def print_error_document(message: str, kind: str) -> None:
    """Print the JSON document of a command that failed, if there is still something to print on."""
    with suppress(OSError):
        print_text(json.dumps(error_values(message, kind)))


def error_values(message: str, kind: str) -> dict[str, str]:
    """Return what a document says of an error: its message, and the name of its class."""
    return {"error": message, "error_type": kind}


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything that goes to standard output to standard error while the block runs, however it ends."""
    with _descriptors_exchanged(), redirect_stdout(sys.stderr):
        yield


@contextmanager
def _descriptors_exchanged() -> Iterator[None]:
    # What was printed before the block still goes to where it belongs.
    _flush()
    try:
        saved = os.dup(_OUT)
    except OSError:  # a process without standard output: nobody can write to it
        yield
        return
    try:
        with suppress(OSError):  # nor is there a place to send it to without standard error
            os.dup2(_ERR, _OUT)
        yield
    finally:
        _flush()
        os.dup2(saved, _OUT)
        os.close(saved)


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        with suppress(AttributeError, OSError, ValueError):  # None, a full disk or a broken pipe, or closed
            stream.flush()  # type: ignore[union-attr]
    # C's own buffer, which is flushed at the process's end otherwise; Windows finds no C library this way.
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
