"""Which code is the user's own: what may change between two runs without a release of anything."""

import site
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType


def is_users_module(module: ModuleType) -> bool:
    """Return :func:`is_users` of a module.

    >>> import torch
    >>> is_users_module(torch)
    False
    """
    # A package without __init__.py has no file, but a place.
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return is_users(module.__name__, file)


def is_users(name: str, file: str | None) -> bool:
    """Return whether a module is the user's own: not of cyclewise, not of Python, not an installed package.

    >>> import torch
    >>> is_users("torch", torch.__file__), is_users("train", "/home/me/train.py"), is_users("__main__", None)
    (False, True, True)
    """
    if name.partition(".")[0] == "cyclewise":
        return False
    if file is None:
        return name == "__main__"
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(Path(place).resolve() for place in {*places, *site.getsitepackages(), site.getusersitepackages()})
