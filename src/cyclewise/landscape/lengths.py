"""Lengths over lists of tensors, in few kernels where the tensors are alike."""

from collections.abc import Sequence

import torch
from torch import Tensor


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the length over all tensors.

    Example:
        >>> norm_of([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    dense = [tensor.coalesce().values() if tensor.is_sparse else tensor for tensor in tensors]
    if not _are_alike(dense):
        return torch.nn.utils.get_total_norm(dense)
    norm: Tensor = torch.stack(torch._foreach_norm(dense)).norm()  # the same, without sorting them first
    return norm


def relative_change(now: list[Tensor], before: list[Tensor]) -> Tensor:
    """Return the length of the change over all tensors, over their length before."""
    changes = torch._foreach_sub(now, before)
    if not _are_alike(before):
        return norm_of(changes) / norm_of(before)
    change, size = torch.stack(torch._foreach_norm([*changes, *before])).view(2, -1).norm(dim=1).unbind()
    ratio: Tensor = change / size
    return ratio


def _are_alike(tensors: Sequence[Tensor]) -> bool:
    device, dtype = tensors[0].device, tensors[0].dtype
    return all(tensor.dtype == dtype and tensor.device == device for tensor in tensors)
