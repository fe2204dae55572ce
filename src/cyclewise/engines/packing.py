"""Functions and jobs as bytes, with an error that says what could not travel."""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
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


@contextmanager
def portable(*values: Any) -> Iterator[None]:
    """Let functions and objects travel whose module another process could not import, while the block runs.

    cloudpickle sends what lives in a module by its name. A file that was loaded by its path, as test runners and
    notebooks do, has a name that means nothing elsewhere; what comes from there is sent by value.

    Args:
        values: functions, partial functions, or objects of classes, that will be sent.

    >>> with portable(abs):
    ...     len(pack(abs, "a job")) > 0
    True
    """
    import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())
    modules = {module.__name__: module for value in values for module in _homes(value) if not _is_importable(module)}
    own = [module for name, module in modules.items() if name not in before]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _homes(value: Any) -> Iterator[ModuleType]:
    if isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _homes(part)
        return
    name = getattr(value, "__module__", None) or type(value).__module__
    module = sys.modules.get(name)
    if module is not None:
        yield module


def _is_importable(module: ModuleType) -> bool:
    """Return whether another process with the same path finds this module by its name."""
    top, _, rest = module.__name__.partition(".")
    file = getattr(module, "__file__", None)
    if top == "__main__" or file is None:  # the first is cloudpickle's own case, the others are built in
        return True
    # Not importlib.util.find_spec, which asks sys.modules first.
    found = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next((spec for spec in found if spec is not None), None)
    if spec is None or rest:
        return spec is not None
    return spec.origin is None or os.path.realpath(spec.origin) == os.path.realpath(file)
