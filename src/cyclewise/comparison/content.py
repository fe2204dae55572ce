"""What a function does, as a hash: its code, what it holds, what it reads, and the user's own modules behind it.

Of the user's code everything counts that a call can reach: the source of its files and of those that they import, and
the values of the globals that its functions read. Installed packages count with the file of what is used and with their
version. What cannot be told by its content is refused: a run that is kept under a wrong name is worse than none.
"""

import copyreg
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from cyclewise.comparison.reads import globals_read
from cyclewise.comparison.users import is_users, is_users_module
from cyclewise.errors import ArgumentError

_PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis)})

_Seen = dict[int, tuple[int, Any]]


def content(function: Any) -> str:
    """Return a hash of what a function does.

    Args:
        function: a function, a ``functools.partial``, a method, a class, or an object with ``__call__``.

    Raises:
        ArgumentError: it holds or reads something that cannot be told by its content.

    >>> content(len) == content(len), content(functools.partial(len)) == content(len)
    (True, False)
    """
    try:
        return digest(list(_Walk({}).parts(function)))
    except RecursionError as error:
        raise ArgumentError(
            "make_learner must be a function whose content can be told when a store is given, got one that holds or "
            "reads something nested too deeply to go through; make it inside the function, or leave out store"
        ) from error


def digest(value: Any) -> str:
    """Return the hash of plain values.

    >>> digest([1, "a"]) == digest((1, "a"))
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class _Walk:
    """Goes through what a function reaches, each thing once."""

    def __init__(self, seen: _Seen) -> None:
        # The things themselves too, so that none is freed and its id given to another.
        self._seen = seen
        self._files: set[str | None] = set()
        self._reading = ""

    def parts(self, value: Any) -> Iterator[str]:
        """Yield what tells a value from others, as texts."""
        if type(value) in _PLAIN:
            yield f"{type(value).__name__} {value!r}"
            return
        if id(value) in self._seen:
            yield f"seen {self._seen[id(value)][0]}"
            return
        self._seen[id(value)] = (len(self._seen), value)
        if isinstance(value, functools.partial):
            yield "partial"
            yield from self.parts([value.func, value.args, value.keywords])
        elif inspect.ismethod(value):
            yield "method"
            yield from self.parts([value.__func__, value.__self__])
        elif inspect.isfunction(value):
            yield from self._function(value)
        elif inspect.isclass(value):
            yield from self._class(value)
        elif inspect.isbuiltin(value):
            yield f"builtin {value.__qualname__}"
            yield from self.parts(value.__self__)
        elif isinstance(value, ModuleType):
            yield from self._module(value)
        elif isinstance(value, CodeType):
            yield "code"
            yield from self.parts([value.co_code, value.co_names, value.co_consts])
        elif "__wrapped__" in getattr(value, "__dict__", {}):
            yield "wrapper"
            yield from self.parts(value.__wrapped__)
        else:
            yield f"{type(value).__module__}.{type(value).__qualname__}"
            yield from self._inside(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield f"function {function.__qualname__}"
        yield _text(function)
        yield from self.parts(function.__code__)
        cells = list(_held(function))
        file = function.__globals__.get("__file__")
        if file is not None and not is_users(function.__module__ or "", file):
            # A decorator's wrapper: what it wraps is the user's again, whatever else the library keeps there.
            for value in filter(callable, cells):
                yield from self.parts(value)
            return
        yield from self._imported(function.__globals__)
        yield from self.parts([function.__defaults__, function.__kwdefaults__, cells])
        outer = self._reading
        for name, value in globals_read(function).items():
            self._reading = name
            yield name
            yield from self.parts(value)
        self._reading = outer

    def _class(self, kind: type) -> Iterator[str]:
        yield f"class {kind.__module__}.{kind.__qualname__}"
        yield _text(kind)
        module = sys.modules.get(kind.__module__)
        if module is not None and not is_users_module(module):
            return
        for base in kind.__bases__:
            yield from self.parts(base)
        for name, value in vars(kind).items():
            inner = _function_of(value)
            if inspect.isfunction(inner) or type(inner) in _PLAIN:
                yield name
                yield from self.parts(inner)

    def _module(self, module: ModuleType) -> Iterator[str]:
        yield f"module {module.__name__}"
        if is_users_module(module):
            yield from self._imported(vars(module))
        else:
            top = sys.modules.get(module.__name__.partition(".")[0])
            yield str(getattr(top, "__version__", ""))

    def _imported(self, names: Mapping[str, Any]) -> Iterator[str]:
        """Yield the source of the module with these globals and of the user's modules that it imports."""
        if id(names) in self._seen:
            return
        self._seen[id(names)] = (len(self._seen), names)
        file = names.get("__file__")
        # A file that was imported anew, as a command does, is the same source under another set of names.
        if file is not None and file in self._files:
            return
        self._files.add(file)
        yield "" if file is None else _of_file(file)
        for value in list(names.values()):
            if isinstance(value, ModuleType):
                module: ModuleType | None = value
            elif inspect.isfunction(value) or inspect.isclass(value):
                module = sys.modules.get(value.__module__)
            else:
                continue
            if module is not None and is_users_module(module):
                yield from self._imported(vars(module))

    def _inside(self, value: Any) -> Iterator[str]:
        kind = type(value)
        if kind in (list, tuple):
            # By far the longest lists are of numbers.
            if all(type(item) in _PLAIN for item in value):
                yield repr(value)
                return
            for item in value:
                yield from self.parts(item)
        elif kind is dict:
            for pair in value.items():
                yield from self.parts(pair)
        elif kind in (set, frozenset):
            yield from sorted(digest(list(_Walk(dict(self._seen)).parts(item))) for item in value)
        else:
            try:
                made = _reduced(value)
            except Exception as error:
                what = f"reads {self._reading}, a" if self._reading else "holds a"
                raise ArgumentError(
                    "make_learner must be a function whose content can be told when a store is given, got one that "
                    f"{what} {kind.__name__} ({type(error).__name__}: {error}); make it inside the function, or leave "
                    "out store"
                ) from error
            yield from self.parts(kind)
            for part in made:
                yield from self.parts(part)


def _held(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not set yet: a name that is assigned further down
            yield cell.cell_contents


def _function_of(value: Any) -> Any:
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else value


def _reduced(value: Any) -> list[Any]:
    """Return a value as pickle takes it apart, but without the addresses that are in what pickle writes of some."""
    if isinstance(value, Tensor):
        dense = value.detach().cpu().to_dense() if value.layout != torch.strided else value.detach().cpu()
        data = dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [str(value.dtype), list(value.shape), value.requires_grad, hashlib.sha256(data).hexdigest()]
    if isinstance(value, torch.Generator):
        return _reduced(value.get_state())
    reduce = copyreg.dispatch_table.get(type(value))
    made: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(made, str):
        return [made]
    return [list(part) if isinstance(part, Iterator) else part for part in made]


def _of_file(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


def _text(value: Any) -> str:
    # The whole file: what a function does is decided by its neighbours too. In a notebook there is only the cell.
    try:
        file = inspect.getsourcefile(value)
        if file is not None and Path(file).is_file():
            return _of_file(file)
        return inspect.getsource(value)
    except (OSError, TypeError):
        return ""
