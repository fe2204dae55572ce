"""The ranks of a distributed run: one decision for all of them. Does nothing in a run of one process."""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def is_distributed() -> bool:
    """Return whether several processes train together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first_rank() -> bool:
    """Return whether this process is the one that speaks for all.

    Before the processes have met, what torchrun has set tells.

    Example:
        >>> is_first_rank()
        True
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    # A rank alone, as a scheduler of jobs may set one, is no run of several processes.
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def mean_over_ranks(values: Sequence[float], device: torch.device | None = None) -> list[float]:
    """Return the mean of each value over all ranks; a value that is not finite on one rank is so on all.

    Args:
        values: as many on every rank.
        device: where the collective runs: the ranks' own device for NCCL, the CPU for gloo.

    Example:
        >>> mean_over_ranks([1.0, 2.0])
        [1.0, 2.0]
    """
    if not values or not is_distributed():
        return list(values)
    mean = torch.tensor(list(values), dtype=torch.float32, device=device)
    torch.distributed.all_reduce(mean)
    return [float(value) for value in mean / torch.distributed.get_world_size()]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Add up a tensor over all ranks, in place, and return it.

    Args:
        tensor: of the same shape on every rank, on the rank's own device.

    Example:
        >>> sum_over_ranks(torch.ones(2))
        tensor([1., 1.])
    """
    if is_distributed():
        torch.distributed.all_reduce(tensor)
    return tensor


def gathered(item: Item) -> list[Item]:
    """Return what each rank has, in the order of the ranks; small things only, as they are pickled.

    Example:
        >>> gathered("mine")
        ['mine']
    """
    if not is_distributed():
        return [item]
    items: list[Item] = [item] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(items, item)
    return items


def least_over_ranks(value: int, device: torch.device | None = None) -> int:
    """Return the smallest of a number over all ranks.

    Example:
        >>> least_over_ranks(3)
        3
    """
    if not is_distributed():
        return value
    least = torch.tensor(value, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return int(least)
