"""What happened in a search, one line per event, appended as it happens: nothing is lost when the process is killed.

A line that was cut off by the kill is ignored, and the file goes on behind the last whole one.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cyclewise.errors import CheckpointError
from cyclewise.files import write_file

Event = dict[str, Any]


class Journal:
    """A file of events, open for appending.

    Args:
        path: the file; it is made where it is not there, its folder too.
        header: what the search is; a file of another search is refused.

    Attributes:
        events: what had happened before, in order.

    Raises:
        CheckpointError: the file belongs to another search, or cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines, whole = _whole_lines(self._path)
            self.events = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {str(self._path)!r} cannot be used ({type(error).__name__}: {error}); "
                "pass another path, or delete the file to start again"
            ) from error
        if self.events:
            self._check(self.events.pop(0), header)
        self._file = open(self._path, "ab")
        self._file.truncate(whole)
        if not whole:
            self.write(_first(header))

    def write(self, event: Event) -> None:
        """Append an event; it is on the disk when this returns.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            self._file.write(_line(event))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {str(self._path)!r} cannot be written ({error}); "
                "what is in it is whole: make room, and call it again to go on"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, first: Event, header: Mapping[str, Any]) -> None:
        found = first.get("search")
        if not isinstance(found, dict):
            raise CheckpointError(
                f"checkpoint {str(self._path)!r} must be a file that a search wrote; pass another path"
            )
        different = [name for name in {**found, **header} if found.get(name) != header.get(name)]
        if different:
            name = sorted(different)[0]
            raise CheckpointError(
                f"checkpoint {str(self._path)!r} belongs to another search, with {name}={found.get(name)!r} instead of "
                f"{header.get(name)!r}; pass another path, or delete the file to start again"
            )


def write_journal(path: Path, header: Mapping[str, Any], events: Iterable[Event]) -> None:
    """Write a file that :class:`Journal` goes on with, whole or not at all; one that is there is replaced.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, b"".join(map(_line, [_first(header), *events])))
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be written ({error}); make room, or pass another path"
        ) from error


def _first(header: Mapping[str, Any]) -> Event:
    return {"search": dict(header)}


def _line(event: Event) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _whole_lines(path: Path) -> tuple[list[bytes], int]:
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    return data[:whole].splitlines(), whole
