"""Writing a text file whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` by way of a temporary file beside it.

    Whatever fails or interrupts, `path` holds either what it held before or all of `text`, and no temporary file is
    left. An existing file keeps its permissions; a link keeps pointing to the file that it pointed to.

    Args:
        path: the file to write; its folder exists.
        text: what to write.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_text(Path(folder) / "a.txt", "whole")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('a.txt', 'whole')]
    """
    path = path.resolve()
    # Opened by hand and not by tempfile, whose files are for their owner alone: this one gets the user's usual mode.
    temporary = path.with_name(f".cyclewise-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
