"""Loaders with a state of their own that another loader wraps: what passes through it moves them unseen."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from cyclewise.state import preserve
from cyclewise.training.data import ArrayLoader
from cyclewise.training.generators import plain, unplain

# A longer list is data: batches, not loaders.
_LONGEST_LIST = 1000


def loaders_in(loader: Any) -> list[Any]:
    """Return the loaders with a state of their own within a loader of somebody's own, at any depth.

    A loader that has a state itself speaks for all that it wraps; what is in a DataLoader is no loader.

    >>> class Doubling:
    ...     def __init__(self, loader):
    ...         self.loader = loader
    ...     def __iter__(self):
    ...         return ((2 * inputs, targets) for inputs, targets in self.loader)
    >>> import torch
    >>> inner = ArrayLoader(torch.arange(4), torch.arange(4), batch_size=4, seed=0)
    >>> loaders_in(Doubling(Doubling(inner))) == [inner], loaders_in(inner), loaders_in([inner])
    (True, [], [])
    """
    found: list[Any] = []
    pending, seen = [loader], {id(loader)}
    while pending:
        for item in _parts(pending.pop()):
            if id(item) in seen or not hasattr(item, "__iter__") or isinstance(item, nn.Module):
                continue
            seen.add(id(item))
            (found if has_state(item) else pending).append(item)
    return found


def has_state(loader: Any) -> bool:
    """Return whether a loader keeps its own position."""
    if type(loader).__module__.startswith("accelerate"):  # has the methods, and uses them only if told to
        return False
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def nested_states(loaders: Sequence[Any]) -> list[Any]:
    """Return the states of loaders, as plain values and tensors; some draw random numbers to tell it."""
    with preserve():
        return [copy.deepcopy(plain(loader.state_dict())) for loader in loaders]


def set_nested_states(loaders: Sequence[Any], states: Sequence[Mapping[str, Any]]) -> None:
    """Give loaders the states that they had where no pass through them had begun."""
    for loader, state in zip(loaders, states, strict=False):
        options = {"is_within": False} if isinstance(loader, ArrayLoader) else {}
        loader.load_state_dict(unplain(state), **options)


def _parts(loader: Any) -> Iterator[Any]:
    if isinstance(loader, DataLoader) or has_state(loader):
        return
    for value in getattr(loader, "__dict__", {}).values():
        if isinstance(value, Mapping):
            value = list(value.values())
        yield from value if isinstance(value, (list, tuple)) and len(value) <= _LONGEST_LIST else (value,)
