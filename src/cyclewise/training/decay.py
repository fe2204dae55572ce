"""The optimizer's own numbers around a fit: remembered, weight decay set for its duration, put back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from cyclewise._validation import non_negative
from cyclewise.errors import ArgumentError
from cyclewise.param_groups import Groups


def hyperparameters(optimizer: Optimizer) -> Groups:
    """Return what is in the optimizer's groups besides the parameters; tensors are copied."""
    return [
        {name: value.clone() if isinstance(value, Tensor) else value for name, value in group.items()
         if name != "params"}
        for group in optimizer.param_groups
    ]  # fmt: skip


@contextmanager
def weight_decay(optimizer: Optimizer, wd: float | None, at_start: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Set the weight decay to `wd` while the block runs, in the groups that have one, or in all if none has.

    Args:
        optimizer: the optimizer.
        wd: weight decay; None leaves it alone.
        at_start: the groups as they were before the fit, which may have been resumed in its middle.

    Raises:
        ArgumentError: the optimizer has no weight decay, or `wd` is negative.
    """
    if wd is None:
        yield
        return
    decay = non_negative("wd", wd, way_out="1e-4 is usual; None leaves the optimizer's own")
    if not all("weight_decay" in group for group in optimizer.param_groups):
        raise ArgumentError(
            f"wd must be None for an optimizer without weight decay, got {wd!r} for {type(optimizer).__name__}; "
            "leave it out, or use another optimizer"
        )
    before = [group["weight_decay"] for group in at_start]
    try:
        for group, value in zip(optimizer.param_groups, before, strict=True):
            if value or not any(before):
                group["weight_decay"] = decay
        yield
    finally:
        put_back(optimizer, at_start)


def put_back(optimizer: Optimizer, at_start: Sequence[dict[str, Any]]) -> None:
    """Give the groups the weight decay that they had before the fit."""
    for group, before in zip(optimizer.param_groups, at_start, strict=True):
        if "weight_decay" in before:
            group["weight_decay"] = before["weight_decay"]
