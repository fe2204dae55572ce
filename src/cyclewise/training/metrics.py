"""Losses and metrics that come with the Learner: plain functions of outputs and targets."""

import torch
from torch import Tensor

from cyclewise.errors import ArgumentError


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the fraction of samples whose largest output is at the target class.

    Args:
        outputs: scores, shape [N, C] or [N, C, ...].
        targets: class indices, shape [N] or [N, ...].

    Raises:
        ArgumentError: the shapes do not fit.

    Example:
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        0.5
    """
    if outputs.ndim != targets.ndim + 1:
        raise ArgumentError(
            f"outputs must have one dimension more than targets, got shapes {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}; accuracy needs scores [N, C] and class indices [N]"
        )
    return float((outputs.argmax(dim=1) == targets).float().mean())


def class_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of integer class targets: what a Learner without `loss_fn` uses.

    Raises:
        ArgumentError: the targets are not class indices for these outputs.

    Example:
        >>> class_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        tensor(0.6931)
    """
    whole_numbers = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if not whole_numbers or outputs.ndim != targets.ndim + 1:
        raise ArgumentError(
            "loss_fn must be given unless targets are class indices [N] for outputs [N, C], "
            f"got targets of {targets.dtype} {tuple(targets.shape)} and outputs of {tuple(outputs.shape)}; "
            "pass for example loss_fn=torch.nn.functional.mse_loss"
        )
    return torch.nn.functional.cross_entropy(outputs, targets.long())
