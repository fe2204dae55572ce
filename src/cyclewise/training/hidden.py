"""What a model's ``state_dict`` leaves out: buffers that are not persistent, and which parameters are trained."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


def hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are not persistent, by name.

    >>> model = nn.Linear(1, 1)
    >>> model.register_buffer("average", torch.zeros(2), persistent=False)
    >>> hidden_buffers(model)
    {'average': tensor([0., 0.])}
    """
    found = {prefix + name: module._buffers[name] for prefix, module, name in _places(model)}
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def restore_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give the buffers the values that :func:`hidden_buffers` returned; those that the model lacks are left out."""
    with torch.no_grad():
        for prefix, module, name in _places(model):
            own, value = module._buffers[name], saved.get(prefix + name)
            if value is None:
                continue
            if own is not None and own.shape == value.shape and own.is_contiguous():
                own.copy_(value)
            elif own is None or own.numel() <= value.numel():  # it has grown since, or cannot be written to
                module._buffers[name] = value.to(device=None if own is None else own.device, copy=True)


def trained(model: nn.Module) -> list[bool]:
    """Return for each parameter whether it requires a gradient; in order, since a wrapper changes the names."""
    return [parameter.requires_grad for parameter in model.parameters()]


def restore_trained(model: nn.Module, saved: Sequence[bool]) -> None:
    """Have the parameters require a gradient, or none, as :func:`trained` returned."""
    for parameter, requires_grad in zip(model.parameters(), saved, strict=True):
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for prefix, module in model.named_modules():
        for name in sorted(module._non_persistent_buffers_set):
            if name in module._buffers:
                yield f"{prefix}." if prefix else "", module, name
