"""The state of samplers: those of somebody's own count their passes, or shuffle what they hold, unseen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

_NUMBERS = (bool, int, float, str, type(None))


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
    {'epoch': 3, 'order': tensor([0, 1, 2])}
    """
    if _has_state(sampler):
        return {"own": sampler.state_dict()}
    return {name: _kept(value) for name, value in getattr(sampler, "__dict__", {}).items() if _is_kept(value)}


def set_sampler_state(sampler: Any, state: Mapping[str, Any]) -> None:
    """Give a sampler the state that :func:`sampler_state` returned; arrays and lists are written in place."""
    if _has_state(sampler):
        if "own" in state:
            sampler.load_state_dict(state["own"])
        return
    attributes = getattr(sampler, "__dict__", {})
    for name, value in state.items():
        own = attributes.get(name)
        if isinstance(own, np.ndarray) and own.shape == tuple(value.shape):
            own[...] = value.numpy()
        elif isinstance(own, Tensor) and own.shape == value.shape:
            own.copy_(value)
        elif isinstance(own, list):
            own[:] = value
        else:
            attributes[name] = value


def _has_state(sampler: Any) -> bool:
    return callable(getattr(sampler, "state_dict", None)) and callable(getattr(sampler, "load_state_dict", None))


def _is_kept(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind in "biuf")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return type(value) in (list, tuple) and all(type(item) in _NUMBERS for item in value)
    return isinstance(value, (Tensor, np.bool_, np.number)) or type(value) in _NUMBERS


def _kept(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return type(value)(value) if isinstance(value, (list, tuple)) else value
