"""The state of samplers: those of somebody's own count their passes, or shuffle what they hold, unseen."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

_NUMBERS = (bool, int, float, str, type(None))
# Longer lists and arrays are data: they would be copied at every pass, and kept in every checkpoint.
_LONGEST_LIST = 10_000
_LONGEST_ARRAY = 1_000_000
_ARRAY = "NumPy array"


def samplers_of(loader: Any) -> list[Any]:
    """Return the samplers of a DataLoader that are not torch's: those have no state but their generator's."""
    if not isinstance(loader, DataLoader):
        return []
    found = [loader.sampler, loader.batch_sampler]
    inner = getattr(loader.batch_sampler, "sampler", None)
    found += [inner] if inner is not loader.sampler else []
    return [item for item in found if item is not None and not type(item).__module__.startswith("torch.")]


def sampler_state(sampler: Any) -> dict[str, Any]:
    """Return what a sampler says is its state, or else its numbers, arrays and lists of numbers, by attribute.

    >>> class Counting:
    ...     def __init__(self):
    ...         self.epoch, self.order, self.source = 3, np.arange(3), object()
    >>> sampler_state(Counting())
    {'epoch': 3, 'order': {'NumPy array': tensor([0, 1, 2])}}
    """
    if _has_state(sampler):
        return {"own": copy.deepcopy(sampler.state_dict())}
    return {name: _kept(value) for name, value in getattr(sampler, "__dict__", {}).items() if _is_kept(value)}


def set_sampler_state(sampler: Any, state: Mapping[str, Any]) -> None:
    """Give a sampler the state that :func:`sampler_state` returned, arrays and lists in place where that can be."""
    if _has_state(sampler):
        if "own" in state:
            sampler.load_state_dict(copy.deepcopy(state["own"]))
        return
    attributes = getattr(sampler, "__dict__", {})
    for name, saved in state.items():
        own = attributes.get(name)
        value = saved[_ARRAY].numpy().copy() if isinstance(saved, Mapping) else saved
        if not _is_written(own, value):
            attributes[name] = value.clone() if isinstance(value, Tensor) else copy.copy(value)


def counters_of(loader: Any) -> dict[str, int]:
    """Return the whole numbers in a loader of somebody's own, by attribute: it may count its passes by one of them.

    Nothing else of it is taken for state, for it may be the data.

    >>> class Counting:
    ...     def __init__(self):
    ...         self.epoch, self.shuffles, self.targets = 3, True, [0, 1]
    >>> counters_of(Counting()), counters_of([0, 1])
    ({'epoch': 3}, {})
    """
    if isinstance(loader, DataLoader) or _has_state(loader):
        return {}
    attributes = getattr(loader, "__dict__", {})
    return {
        name: int(value) for name, value in attributes.items()
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    }  # fmt: skip


def set_counters(loader: Any, saved: Mapping[str, int]) -> None:
    """Give a loader back what :func:`counters_of` returned, each number of the type that it has now."""
    for name in counters_of(loader).keys() & saved.keys():
        own = vars(loader)[name]
        if own != saved[name]:
            setattr(loader, name, type(own)(saved[name]))


def _is_written(own: Any, value: Any) -> bool:
    """Write the value into what is there; return whether that could be done."""
    if type(own) is list and type(value) is list:
        own[:] = value
        return True
    if isinstance(own, np.ndarray) and isinstance(value, np.ndarray):
        can_be = own.shape == value.shape and own.flags.writeable
        if can_be:
            own[...] = value
        return can_be
    if isinstance(own, Tensor) and isinstance(value, Tensor):
        can_be = own.shape == value.shape and own.is_contiguous()
        if can_be:
            own.detach().copy_(value)
        return can_be
    return False


def _has_state(sampler: Any) -> bool:
    return callable(getattr(sampler, "state_dict", None)) and callable(getattr(sampler, "load_state_dict", None))


def _is_kept(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 and value.size <= _LONGEST_ARRAY
    if isinstance(value, Tensor):
        return value.layout is torch.strided and value.numel() <= _LONGEST_ARRAY
    if type(value) in (list, tuple):
        return len(value) <= _LONGEST_LIST and all(type(item) in _NUMBERS for item in value)
    return isinstance(value, (np.bool_, np.number)) or type(value) in _NUMBERS


def _kept(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True, order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return copy.copy(value)
