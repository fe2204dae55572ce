"""Where a command writes: tried before the work, whose result would be lost if it could not be written.

Modes and mounts do not tell whether a file can be written (a superuser, a quota, a full disk), so one is written beside
the place and removed.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from cyclewise.errors import ArgumentError

# A full disk may have room for a name, but not for the first block behind it.
_BLOCK = 4096


def check_file(option: str, path: Path | None, *, endings: Sequence[str] = (), makes_folder: bool = False) -> None:
    """Raise :class:`ArgumentError` unless a file can be written at `path`.

    Args:
        option: the option that names it.
        path: the file; None, where the option was left out, is fine.
        endings: those that it may have, in lower case and with their dot; none where any will do.
        makes_folder: whether the command makes the folder where it is missing.
    """
    if path is None:
        return
    if os.path.isdir(path):
        example = str(path / f"{option}{endings[0] if endings else ''}")
        raise ArgumentError(f"{option} must be a file, got the folder {str(path)!r}; add a name: {example!r}")
    if endings and path.suffix.lower() not in endings:
        raise ArgumentError(
            f"{option} must end in {', '.join(endings[:-1])} or {endings[-1]}, got {str(path)!r}; "
            f"for example {str(path.with_suffix(endings[0]))!r}"
        )
    if os.path.exists(path) and not os.path.isfile(path):
        raise ArgumentError(f"{option} must be a regular file, got {str(path)!r}; pass the name of a file to write")
    if not os.path.isdir(path.parent) and not makes_folder:
        raise ArgumentError(
            f"{option} must be a file in a folder that is there, got {str(path)!r}; "
            f"make the folder {str(path.parent)!r} first"
        )
    _check_folder_of(option, path, path.parent)
    if os.path.exists(path):
        try:
            path.open("ab").close()
        except OSError as error:
            raise _unwritable(option, path, error) from error


def check_folder(option: str, path: Path | None) -> None:
    """Raise :class:`ArgumentError` unless `path` is a folder, or can be made one, and files can be written into it.

    Args:
        option: the option that names it.
        path: the folder; None, where the option was left out, is fine.
    """
    if path is not None:
        _check_folder_of(option, path, path)


def _check_folder_of(option: str, path: Path, folder: Path) -> None:
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not os.path.isdir(nearest):
        what = "a folder" if folder == path else "a file in a folder"
        raise ArgumentError(
            f"{option} must be {what}, got {str(path)!r}, where {str(nearest)!r} is no folder; pass another path"
        )
    try:
        # Named as what a killed process leaves behind, which checkpoints sweep up.
        with NamedTemporaryFile(dir=nearest, prefix=".cyclewise-", suffix=".tmp") as file:
            file.write(bytes(_BLOCK))
            file.flush()
    except OSError as error:
        raise _unwritable(option, path, error) from error


def _unwritable(option: str, path: Path, error: OSError) -> ArgumentError:
    return ArgumentError(
        f"{option} must be a place that can be written to, got {str(path)!r} ({error.strerror}); pass another path"
    )
