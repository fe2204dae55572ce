"""``path/to/file.py:function``: load the user's file and make a Learner."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclewise._validation import describe
from cyclewise.cli.outcome import UserCodeError
from cyclewise.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from cyclewise.training import Learner


def make_learner(target: str, seed: int) -> "Learner":
    """Return ``function(seed)`` of ``file.py:function``.

    Raises:
        ArgumentError: the file or the function is not there, or the target is not of this form.
        ArgumentTypeError: the function does not take the seed alone, or returns no Learner.
        UserCodeError: the file or the function raised; the cause is what it raised.
    """
    return made(target, load(target), seed)


def made(target: str, function: Callable[[int], Any], seed: int) -> "Learner":
    """Return ``function(seed)``, where `function` is what `target` names; see :func:`make_learner`."""
    from cyclewise.training import Learner

    _check_takes_seed(target, function)
    try:
        learner = function(seed)
    except (Exception, SystemExit) as error:
        raise UserCodeError(target) from error
    if not isinstance(learner, Learner):
        raise ArgumentTypeError(
            f"{target} must return a cyclewise.Learner, got {describe(learner)}; "
            "end it with `return Learner(model, data)`"
        )
    return learner


def _check_takes_seed(target: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not every callable has one
        return
    try:
        signature.bind(0)
    except TypeError:
        name = target.rpartition(":")[2]
        raise ArgumentTypeError(
            f"{target} must be a function of the seed alone, got {name}{signature}; begin it with `def {name}(seed):`"
        ) from None


def load(target: str) -> Callable[[int], Any]:
    """Return ``function`` of ``file.py:function``; the file is run for it.

    Raises:
        ArgumentError: the file or the function is not there, or the target is not of this form.
        UserCodeError: the file raised; the cause is what it raised.
    """
    name, _, attribute = target.rpartition(":")
    if not name or not attribute:
        raise ArgumentError(
            f"FILE:FUNCTION must name a file and a function in it, got {target!r}; for example train.py:make_learner"
        )
    path = Path(name)
    if not path.is_file():
        raise ArgumentError(
            f"FILE:FUNCTION must name a file that exists, got {name!r}; the path is relative to {str(Path.cwd())!r}"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"FILE:FUNCTION must name a Python file, got {name!r}; its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    # As `python file.py` does: the file's neighbours can be imported, and its classes be pickled by name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserCodeError(name) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        listed = ", ".join(sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_"))
        raise ArgumentError(
            f"FILE:FUNCTION must name a function of {name}, got {attribute!r}; it has: {listed or 'none'}"
        )
    return function  # type: ignore[no-any-return]
