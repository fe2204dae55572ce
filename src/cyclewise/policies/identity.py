"""What an object is, told by its attributes: equality and text for policies whose class says nothing of its own.

A memory address is in neither, so that what is equal here is equal, and reads the same, in another process.
"""

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Longer arrays are told by a hash: the text goes into every checkpoint.
_MOST_PRINTED = 1000
# Of any other value no more characters than this, for the same reason.
_MOST_CHARACTERS = 10_000
# What Python prints of an object that says nothing of itself.
_ADDRESS = " at 0x"
# Where an object keeps how its settings read when it was made.
_AS_MADE = "_as_made"
# What changes while training goes on is told by its class.
_CHANGING = ("cyclewise.training", "torch.optim")
_PLAIN_TYPES = frozenset({float, int, bool, str, type(None)})

_Texts = dict[int, tuple[Any, str]]


def attributes(item: Any) -> dict[str, Any]:
    """Return what was set on an object, by name; what cached properties keep there is left out."""
    kind = type(item)
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        names = list(fields)
    else:
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if hasattr(item, name)]
        names = [*slots, *getattr(item, "__dict__", ())]
    return {
        name: getattr(item, name)
        for name in names
        if name != _AS_MADE and not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def remember(item: Any) -> None:
    """Keep how private attributes and functions read now, right after `__init__`: later they may hold what was cached.

    The private attributes of a dataclass are not kept, as its fields say what it is.
    """
    has_fields = hasattr(type(item), "__dataclass_fields__")
    kept = {
        name: text(value)
        for name, value in attributes(item).items()
        if (name.startswith("_") and not has_fields) or callable(value)
    }
    if kept or not has_fields:
        object.__setattr__(item, _AS_MADE, kept)


def settings(item: Any) -> dict[str, Any]:
    """Return :func:`attributes`, the private ones as they read when the object was made; later ones are left out."""
    kept = getattr(item, "__dict__", {}).get(_AS_MADE)
    found = attributes(item)
    if kept is None or hasattr(type(item), "__dataclass_fields__"):
        return found
    return {
        name: kept.get(name) if name.startswith("_") else value
        for name, value in found.items()
        if name in kept or not name.startswith("_")
    }


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; arrays, lists and tuples of the same numbers are, as they are in JSON."""
    return _same(one, other, set())


def _same(one: Any, other: Any, within: set[tuple[int, int]]) -> bool:
    pair = (id(one), id(other))
    if one is other or pair in within:
        return True
    # Those that hold themselves are met again here; taken out when done, since an id may be used anew.
    within.add(pair)
    try:
        return _alike(_plain(one), _plain(other), within)
    finally:
        within.discard(pair)


def _alike(one: Any, other: Any, within: set[tuple[int, int]]) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(*pair, within) for pair in zip(one, other, strict=True))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key], within) for key in one)
    compares_addresses = getattr(type(one), "__eq__", None) is object.__eq__
    if type(one) is type(other) and compares_addresses and not callable(one) and attributes(one):
        return _same(attributes(one), attributes(other), within)
    return bool(one == other)


def text(value: Any) -> str:
    """Return a value as text that reads the same in every process; of what is long, a hash.

    >>> text([0.5, abs, functools.partial(round, ndigits=2)])
    '[0.5, builtins.abs, partial(builtins.round, ndigits=2)]'
    """
    return _text(value, {})


def call(item: Any, settings: Mapping[str, Any]) -> str:
    """Return the text of the call that would make an object with these settings."""
    return _call(item, settings, {})


def _call(item: Any, settings: Mapping[str, Any], known: _Texts) -> str:
    kept = getattr(item, "__dict__", {}).get(_AS_MADE, {})
    parts = [f"{name}={kept[name] if name in kept else _text(value, known)}" for name, value in settings.items()]
    return f"{type(item).__qualname__}({', '.join(parts)})"


def _text(value: Any, known: _Texts) -> str:
    """Return the text of a value; `known` has those of all values met so far, and dots for those that hold this one."""
    if type(value) in _PLAIN_TYPES:
        return _cut(value, repr(value))
    if id(value) not in known:
        known[id(value)] = (value, "...")  # the value too, so that its id stays its own
        known[id(value)] = (value, _cut(value, _whole_text(value, known)))
    return known[id(value)][1]


def _cut(value: Any, whole: str) -> str:
    if len(whole) <= _MOST_CHARACTERS:
        return whole
    return f"<{type(value).__qualname__} of {len(whole)} characters, sha256 {_digest(whole)}>"


def _whole_text(value: Any, known: _Texts) -> str:
    if _is_array(value) and math.prod(value.shape) > _MOST_PRINTED:
        return f"<array of shape {tuple(value.shape)}, sha256 {_digest(repr(value.tolist()))}>"
    value = _plain(value)
    if type(value) in (list, tuple):
        if _PLAIN_TYPES.issuperset(map(type, value)):
            return repr(value)
        items = ", ".join(_text(item, known) for item in value)
        return f"[{items}]" if type(value) is list else f"({items}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return f"{{{', '.join(f'{_text(key, known)}: {_text(item, known)}' for key, item in value.items())}}}"
    if type(value) in (set, frozenset) and value:
        # Sorted, since the order of strings in a set is another one in every process.
        items = ", ".join(sorted(_text(item, known) for item in value))
        return f"{{{items}}}" if type(value) is set else f"frozenset({{{items}}})"
    if isinstance(value, functools.partial):
        parts = [_text(item, known) for item in value.args]
        parts += [f"{name}={_text(item, known)}" for name, item in value.keywords.items()]
        return f"partial({', '.join([_text(value.func, known), *parts])})"
    if callable(value) and hasattr(value, "__qualname__"):
        owner = getattr(value, "__self__", None)
        of = "" if owner is None or isinstance(owner, ModuleType) else f" of {_text(owner, known)}"
        return f"{value.__module__}.{value.__qualname__}{of}{_held(value, known)}"
    if any(base.__module__.startswith(_CHANGING) for base in type(value).__mro__):
        return type(value).__qualname__
    printed = repr(value)
    fields = getattr(type(value), "__dataclass_fields__", ())
    has_sets = any(isinstance(getattr(value, name, None), (set, frozenset)) for name in fields)
    return _call(value, settings(value), known) if has_sets or _ADDRESS in printed else printed


def _held(function: Any, known: _Texts) -> str:
    """Return what tells a function from others of its name: defaults, closure, and a lambda's code."""
    if not isinstance(function, FunctionType):
        return ""
    held = []
    if function.__name__ == "<lambda>":
        held.append(f"code={_digest(repr(list(_code(function.__code__))))}")
    if function.__defaults__ or function.__kwdefaults__:
        held.append(f"defaults={_text([*(function.__defaults__ or ()), function.__kwdefaults__ or {}], known)}")
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held.append(f"{name}={_text(cell.cell_contents, known)}")
        except ValueError:  # a name that is not yet assigned
            held.append(f"{name}=?")
    return f"[{', '.join(held)}]" if held else ""


def _code(code: CodeType) -> Iterator[str]:
    yield from (code.co_code.hex(), *code.co_names)
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else (text(constant),)


def _digest(whole: str) -> str:
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_array(value: Any) -> bool:
    return hasattr(value, "tolist") and hasattr(value, "shape") and not isinstance(value, type)


def _plain(value: Any) -> Any:
    return value.tolist() if _is_array(value) else value
