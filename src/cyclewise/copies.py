"""A batch of its own for whoever may write into it.

A model that begins with an in-place layer, such as ``nn.ReLU(inplace=True)``, writes into the batch that it is given,
and a loader may fill one buffer again and again. So what is kept is copied when it is kept, and what is handed to a
model more than once is copied each time.
"""

import copy
import dataclasses
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def copied(batch: Any, device: torch.device | None = None) -> Any:
    """Return the batch with every tensor in it replaced by a copy.

    Tuples, lists, dicts, named tuples and dataclasses are rebuilt at any depth and keep their type; anything else is
    passed on as it is. A tensor that the batch holds twice is one tensor in the copy too.

    Args:
        batch: whatever a loader yields.
        device: where the copies are to be; None: where the tensors are. Moving a tensor copies it anyway, so a batch
            for another device costs one copy, not two.

    Example:
        >>> inputs = torch.ones(2)
        >>> copy = copied((inputs, {"again": inputs, "name": "a"}))
        >>> copy[0].zero_(), inputs
        (tensor([0., 0.]), tensor([1., 1.]))
        >>> copy[1]
        {'again': tensor([0., 0.]), 'name': 'a'}
    """
    return _copied(batch, device, {})


def _copied(value: Any, device: torch.device | None, copies: dict[int, Any]) -> Any:
    # Whatever is met is alive while the batch is, so an id stands for one object.
    if id(value) in copies:
        return copies[id(value)]
    new: Any
    if isinstance(value, Tensor):
        new = copies[id(value)] = _copied_tensor(value, device)
    elif isinstance(value, tuple):
        items = [_copied(item, device, copies) for item in value]
        new = type(value)._make(items) if hasattr(value, "_make") else tuple.__new__(type(value), items)
    elif isinstance(value, list):
        new = copies[id(value)] = copy.copy(value)
        new[:] = [_copied(item, device, copies) for item in value]
    elif isinstance(value, (dict, UserDict)):
        new = copies[id(value)] = copy.copy(value)  # its own kind of copy: a defaultdict's factory goes along
        for key, item in value.items():
            new[key] = _copied(item, device, copies)
    elif isinstance(value, Mapping):
        try:
            new = type(value)({key: _copied(item, device, copies) for key, item in value.items()})  # type: ignore[call-arg]
        except TypeError:  # it is not made of a dict, so nobody knows how to make another
            return value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = copies[id(value)] = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):  # object's: a frozen dataclass refuses its own
                object.__setattr__(new, field.name, _copied(getattr(value, field.name), device, copies))
    else:
        return value
    return new


def _copied_tensor(tensor: Tensor, device: torch.device | None) -> Tensor:
    # A leaf stays a leaf, which a loss may ask for the derivative by its inputs; a graph behind it stays attached.
    if tensor.requires_grad and tensor.is_leaf:
        return _copied_tensor(tensor.detach(), device).requires_grad_()
    if device is None or device == tensor.device:
        return tensor.clone()
    # "cuda" and "cuda:0" may be one, hence copy; and the copy is waited for, as a loader may fill its buffer again.
    return tensor.to(device, copy=True)
