"""Where a report comes from: versions, date, and the command that repeats it."""

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import PurePath

PACKAGES = ("cyclewise", "torch", "numpy")


@dataclass(frozen=True)
class Origin:
    """What is needed to make a report again.

    Args:
        versions: name and version of each part, in the order they are shown.
        date: when it was made, in UTC.
        command: the command that repeats it; None where it is not known.
    """

    versions: dict[str, str]
    date: datetime
    command: str | None

    @classmethod
    def here(cls, command: str | None = None) -> "Origin":
        """Return the origin of a report made now, by this process.

        >>> list(Origin.here().versions)
        ['cyclewise', 'Python', 'torch', 'numpy', 'platform']
        """
        found = {package: _version(package) for package in PACKAGES}
        versions = {
            "cyclewise": found.pop("cyclewise"),
            "Python": platform.python_version(),
            **found,
            "platform": platform.platform(terse=True),
        }
        now = datetime.now(timezone.utc).replace(microsecond=0)
        return cls(versions, now, command_line(sys.argv) if command is None else command)


def command_line(argv: Sequence[str]) -> str | None:
    """Return the command that started this process, where that was cyclewise's own; None for a script or a notebook.

    >>> command_line(["/usr/bin/cyclewise", "find", "my file.py:make_learner"])
    "cyclewise find 'my file.py:make_learner'"
    >>> command_line(["train.py", "--epochs", "3"]) is None
    True
    """
    if not argv:
        return None
    program = PurePath(argv[0])
    if program.stem == "cyclewise" or program.parts[-2:] == ("cyclewise", "__main__.py"):
        return shlex.join(["cyclewise", *argv[1:]])
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
