"""Losses and metrics that come with the Learner: plain functions of outputs and targets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cyclewise.errors import ArgumentError
from cyclewise.stepping import own_loss

DICT_BATCHES = (
    "where batches are dicts, metrics get the model's output and the whole batch: take what they need out of them, for "
    'example lambda o, t: cyclewise.accuracy(o.logits, t["labels"])'
)


def accuracy(outputs: Any, targets: Any) -> float:
    """Return the fraction of samples whose largest output is at the target class.

    Args:
        outputs: scores, shape [N, C] or [N, C, ...].
        targets: class indices, shape [N] or [N, ...].

    Raises:
        ArgumentError: the shapes do not fit, or a batch that is a dict was passed on as it is.

    Example:
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        0.5
    """
    if isinstance(targets, Mapping) or not isinstance(outputs, Tensor):
        raise ArgumentError(
            "outputs must be scores [N, C] and targets class indices [N] for accuracy, got outputs of "
            f"{_look(outputs)} and targets of {_look(targets)}; {DICT_BATCHES}"
        )
    if outputs.ndim != targets.ndim + 1:
        raise ArgumentError(
            f"outputs must have one dimension more than targets, got shapes {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}; accuracy needs scores [N, C] and class indices [N]"
        )
    return float((outputs.argmax(dim=1) == targets).float().mean())


def first_looks(metrics: Iterable[Any], valid_loader: Any) -> list[Callable[[Sequence[Any]], None]]:
    """Return what looks at the batches of each step, so that a metric that cannot work is known of before an epoch is.

    A metric gets its first output after the last step of an epoch; but of :func:`accuracy` it is known that it takes no
    dicts. Without reading a batch for validation it is taken to be as those for training are, unless a list shows it.
    """
    shows_another = isinstance(valid_loader, Sequence) and not isinstance(next(iter(valid_loader), None), Mapping)
    if valid_loader is None or shows_another or all(metric is not accuracy for metric in metrics):
        return []

    def refuse_dicts(batches: Sequence[Any]) -> None:
        if isinstance(batches[0], Mapping):
            raise ArgumentError(
                "metrics must not hold accuracy as it is where batches are dicts, got it and a batch of "
                f"{list(batches[0])}; {DICT_BATCHES}"
            )

    return [refuse_dicts]


def class_loss(outputs: Any, targets: Any) -> Tensor:
    """Return the cross-entropy of integer class targets: what a Learner without `loss_fn` uses.

    Where a batch is a dict, it is the loss that the model has put into its output.

    Raises:
        ArgumentError: the targets are not class indices for these outputs.

    Example:
        >>> class_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        tensor(0.6931)
    """
    if isinstance(targets, Mapping):
        return own_loss(outputs)
    are_tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not are_tensors or not _is_whole(targets) or outputs.ndim != targets.ndim + 1:
        raise ArgumentError(
            "loss_fn must be given unless targets are class indices [N] for outputs [N, C], "
            f"got targets of {_look(targets)} and outputs of {_look(outputs, with_dtype=False)}; "
            "pass for example loss_fn=torch.nn.functional.mse_loss"
        )
    try:
        return torch.nn.functional.cross_entropy(outputs, targets.long())
    except (IndexError, ValueError) as error:
        raise ArgumentError(
            f"targets must be class indices in [0, {outputs.shape[1]}), one for each sample, "
            f"got targets of {_look(targets)} from {int(targets.min())} to {int(targets.max())} "
            f"and outputs of {tuple(outputs.shape)}; "
            "give the model as many outputs as there are classes, and number those from 0"
        ) from error


def _is_whole(targets: Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)


def _look(value: Any, *, with_dtype: bool = True) -> str:
    if not isinstance(value, Tensor):
        return f"the type {type(value).__name__}"
    return f"{value.dtype} {tuple(value.shape)}" if with_dtype else str(tuple(value.shape))
