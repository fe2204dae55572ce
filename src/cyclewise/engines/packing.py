"""Functions and jobs as bytes, with an error that says what could not travel."""

from typing import Any

from cyclewise.engines.outcome import Function
from cyclewise.errors import ArgumentTypeError


def pack(value: Any, what: str) -> bytes:
    """Return `value` as bytes for another process.

    Raises:
        ArgumentTypeError: it cannot be sent; the message says what was in the way.

    >>> len(pack(3, "a job")) > 0
    True
    """
    import cloudpickle  # here: importing cyclewise does without

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        raise ArgumentTypeError(
            f"{what} must be something that can be sent to another process, got {type(value).__name__} "
            f"({type(error).__name__}: {error}); open files, loaders and locks inside the function, or run it with "
            'engine="local" and one worker'
        ) from error


def pack_function(function: Function) -> bytes:
    """Return `function` as bytes for another process; see :func:`pack`."""
    return pack(function, "the function of a worker")
