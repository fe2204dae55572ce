"""Writing bytes to a file, or a folder of files, whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

# Names that begin so are leftovers of a process that was killed while it wrote.
TEMPORARY = ".cyclewise-"


def write_file(path: Path, payload: bytes | memoryview) -> None:
    """Write `payload` to `path` by way of a temporary file beside it, flushed before it is renamed.

    Whatever fails or interrupts, `path` holds either what it held before or all of `payload`, and no temporary file is
    left. An existing file keeps its permissions; a link keeps pointing to the file that it pointed to.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(Path(folder) / "a.bin", b"whole")
    ...     [(file.name, file.read_bytes()) for file in Path(folder).iterdir()]
    [('a.bin', b'whole')]
    """
    path = path.resolve()
    # Opened by hand and not by tempfile, whose files are for their owner alone: this one gets the user's usual mode.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        _flushed(temporary, payload)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_folder(path: Path, files: Mapping[str, bytes | memoryview]) -> None:
    """Make the folder `path` with these files in it: all of them, or no folder at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, payload in files.items():
            _flushed(temporary / name, payload)
        _flush_folder(temporary)
        temporary.rename(path)
        _flush_folder(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(directory: Path) -> None:
    """Remove what a process that was killed while writing left in a directory that nobody else writes to."""
    for leftover in directory.glob(f"{TEMPORARY}*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _flushed(path: Path, payload: bytes | memoryview) -> None:
    with path.open("xb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    # Without it a power cut may lose the name of a file whose contents are safe.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
