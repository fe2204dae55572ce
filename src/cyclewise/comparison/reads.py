"""What a function reads from outside itself: the globals that its code loads, told from its bytecode."""

import dis
from collections import deque
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

from cyclewise.comparison.users import is_users_module

_LOADS, _LOADS_ATTRIBUTE = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_ATTR", "LOAD_METHOD")
# A function that does nothing else with a global than this notes something down in it, and reads nothing from it.
_NOTING = frozenset({"add", "append", "appendleft", "extend", "insert"})
# `notes[key] = value` loads the key in between; `notes[key] += 1` copies both before it reads.
_WRITES_INTO = ("STORE_SUBSCR", "COPY", "DUP_TOP_TWO")


def globals_read(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function reads, by name; of the user's modules what it reads of them too.

    What it only writes is left out.

    >>> import math
    >>> def area(radius):
    ...     calls.append(radius)
    ...     return math.pi * radius**2 * SCALE
    >>> list(globals_read(FunctionType(area.__code__, {"SCALE": 2.0, "math": math, "calls": []})))
    ['math', 'SCALE']
    """
    found: dict[str, Any] = {}
    for code in _codes(function.__code__):
        parts = [part for part in dis.get_instructions(code) if part.opname not in ("CACHE", "EXTENDED_ARG")]
        for place, part in enumerate(parts):
            if part.opname in _LOADS and part.argval in function.__globals__:
                value, following = function.__globals__[part.argval], parts[place + 1 :]
                if not _is_noted_in(part.argval, value, following):
                    found |= _with_attributes(part.argval, value, following)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _codes(value)


def _is_noted_in(name: str, value: Any, following: Sequence[dis.Instruction]) -> bool:
    first, *others = following[:3]
    if isinstance(value, (list, set, deque)) and first.opname in _LOADS_ATTRIBUTE and first.argval in _NOTING:
        return True
    if not first.opname.startswith("LOAD") or not others:
        return False
    # `count += 1` loads it, the number, adds and stores it again.
    is_counted = others[-1].opname == "STORE_GLOBAL" and others[-1].argval == name
    return is_counted or others[0].opname in _WRITES_INTO


def _with_attributes(name: str, value: Any, following: Sequence[dis.Instruction]) -> dict[str, Any]:
    found = {name: value}
    for part in following:
        is_module = isinstance(value, ModuleType) and is_users_module(value)
        if not is_module or part.opname not in _LOADS_ATTRIBUTE or part.argval not in vars(value):
            break
        name, value = f"{name}.{part.argval}", vars(value)[part.argval]
        found[name] = value
    return found
