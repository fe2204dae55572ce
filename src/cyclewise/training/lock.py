"""One process at a time trains into the folder of a run.

The lock is the system's own, on a file in the folder: it ends with the process, however that ends, so that what a crash
leaves behind stands in nobody's way, and it is not handed down to worker processes. The file says who holds it.
"""

import errno
import os
import socket
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

_NAME = ".cyclewise-lock"
_LONGEST = 1000
_IS_HELD = (errno.EACCES, errno.EAGAIN)


class Lock:
    """The lock of a run's folder; taken while a fit runs.

    Args:
        directory: the folder; made if it is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     lock = Lock(Path(directory))
        ...     print(lock.take(), os.listdir(directory))
        ...     lock.release()
        ...     os.listdir(directory)
        None ['.cyclewise-lock']
        []
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / _NAME
        self._descriptor = -1
        self._closes: weakref.finalize[..., Lock] | None = None

    def take(self) -> str | None:
        """Take the lock, and return None; or what is to be said where another process of this machine holds it.

        A folder that cannot be locked, or is by a process of another machine, which may have died without the file
        server's knowledge, keeps nobody from training.
        """
        self.release()
        holder = None
        with suppress(ImportError, OSError):  # Windows has other locks; a disk that cannot be written to says so later
            self._directory.mkdir(parents=True, exist_ok=True)
            holder = self._hold()
        if holder is None:
            return None
        where = f"{str(self._directory)!r}, into which {holder or 'another process'} is training"
        if holder.endswith(_place()):
            return (
                f"directory must be that of one process at a time, got {where}; wait until it has ended, or stop it, "
                "and resume from there again, or pass another directory"
            )
        warnings.warn(
            f"directory should be that of one process at a time, got {where}; if it still is, stop one of the two, "
            f"if not, remove {str(self._path)!r}",
            UserWarning,
            stacklevel=2,
        )
        return None

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._closes is not None and self._closes.alive:
            with suppress(OSError):
                if self._is_there():
                    self._path.unlink()
            self._closes()
        self._closes = None

    def _hold(self) -> str | None:
        """Lock the file, or return who has it locked."""
        import fcntl

        while True:
            closes = self._open()
            try:
                # Not flock, which every worker process that is forked meanwhile would go on to hold.
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_there():
                    break
            except OSError as error:
                try:
                    if error.errno not in _IS_HELD:
                        raise
                    return os.read(self._descriptor, _LONGEST).decode(errors="replace")
                finally:
                    closes()
            closes()  # who held it has removed it since it was opened
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()}{_place()}".encode())
        return None

    def _open(self) -> "weakref.finalize[..., Lock]":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        # With this object at the latest, where a second Ctrl-C has cut off what would have released it.
        self._closes = weakref.finalize(self, os.close, self._descriptor)
        return self._closes

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False


def _place() -> str:
    return f" on {socket.gethostname()}"
