"""What an object is, told by its attributes: equality and text for policies whose class says nothing of its own.

A memory address is in neither, so that what is equal here is equal, and reads the same, in another process.
"""

import functools
import hashlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

# Longer arrays are told by a hash: the text goes into every checkpoint.
_MOST_PRINTED = 1000
# What Python prints of an object that says nothing of itself.
_ADDRESS = " at 0x"


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
        if not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; arrays, lists and tuples of the same numbers are, as they are in JSON."""
    if one is other:
        return True
    one, other = _plain(one), _plain(other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    compares_addresses = getattr(type(one), "__eq__", None) is object.__eq__
    if type(one) is type(other) and compares_addresses and not callable(one) and attributes(one):
        return same(attributes(one), attributes(other))
    return bool(one == other)


def text(value: Any) -> str:
    """Return a value as text that reads the same in every process.

    >>> text([0.5, abs, functools.partial(round, ndigits=2)])
    '[0.5, builtins.abs, partial(builtins.round, ndigits=2)]'
    """
    if _is_array(value) and value.size > _MOST_PRINTED:
        digest = hashlib.sha256(repr(value.tolist()).encode()).hexdigest()[:16]
        return f"<array of shape {value.shape}, sha256 {digest}>"
    value = _plain(value)
    if type(value) is list:
        return f"[{', '.join(map(text, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(text, value))}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return f"{{{', '.join(f'{text(key)}: {text(item)}' for key, item in value.items())}}}"
    if isinstance(value, functools.partial):
        parts = [*map(text, value.args), *(f"{name}={text(item)}" for name, item in value.keywords.items())]
        return f"partial({', '.join([text(value.func), *parts])})"
    if callable(value) and hasattr(value, "__qualname__"):
        owner = getattr(value, "__self__", None)
        of = "" if owner is None or isinstance(owner, ModuleType) else f" of {text(owner)}"
        return f"{value.__module__}.{value.__qualname__}{of}"
    printed = repr(value)
    return printed if _ADDRESS not in printed else call(value, attributes(value))


def call(item: Any, settings: Mapping[str, Any]) -> str:
    """Return the text of the call that would make an object with these settings."""
    return f"{type(item).__qualname__}({', '.join(f'{name}={text(value)}' for name, value in settings.items())})"


def _is_array(value: Any) -> bool:
    return hasattr(value, "tolist") and hasattr(value, "shape")


def _plain(value: Any) -> Any:
    return value.tolist() if _is_array(value) else value
