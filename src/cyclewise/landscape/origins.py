"""Which activation a layer's input came from, read off autograd's graph, so that functional calls are seen as well.

Between an activation and the next layer there may be pooling, dropout, reshaping or a normalisation: these are passed
over. A sum (a residual connection) is not: its units are not those of one activation.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Kind = Literal["relu", "tanh", "sigmoid"]
_SAVING: dict[str, Kind] = {"ReluBackward0": "relu", "TanhBackward0": "tanh", "SigmoidBackward0": "sigmoid"}
_PASSED = (
    "View", "UnsafeView", "_ReshapeAlias", "ReshapeAlias", "Transpose", "TBackward", "Permute", "Squeeze", "Unsqueeze",
    "Clone", "Expand", "Slice", "Select", "MaxPool", "AvgPool", "AdaptiveAvgPool", "MkldnnAdaptiveAvgPool", "Mean",
    "NativeDropout", "NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "ToCopy",
)  # fmt: skip
# Behind these and the ones passed over, what differs between samples goes on to differ.
_PLAIN = (*_PASSED, "AddBackward", "SubBackward", "MulBackward", "CatBackward", "StackBackward", "RepeatBackward")
# What these take by index or condition leaves no trace in the graph.
_LOOKED_UP = ("Embedding", "Index", "Gather", "Where")
_CHANNELS_FIRST = ("Convolution", "NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "MaxPool", "AvgPool")
_FURTHEST = 8
_FURTHEST_LAYER = 4


@dataclass(frozen=True)
class Origin:
    """The activation that made a tensor.

    Attributes:
        kind: which.
        values: its outputs, detached.
        unit_dim: the dimension of `values` that counts its units: features or channels.
    """

    kind: Kind
    values: Tensor
    unit_dim: int


def origin_of(tensor: Tensor) -> Origin | None:
    """Return the activation that a layer's input came from; None where it is none of those known, or cannot be told.

    Example:
        >>> import torch
        >>> weight = torch.ones(3, 2, requires_grad=True)
        >>> hidden = torch.relu(torch.ones(4, 2) @ weight.T)
        >>> origin = origin_of(torch.nn.functional.dropout(hidden).reshape(4, 3))
        >>> origin.kind, tuple(origin.values.shape), origin.unit_dim
        ('relu', (4, 3), 1)
    """
    node: Any = tensor.grad_fn
    for _ in range(_FURTHEST):
        if node is None:
            return None
        name = node.name()
        if name in _SAVING:
            values = node._saved_result.detach()
            return Origin(_SAVING[name], values, _unit_dim(node, values))
        if name == "HardtanhBackward0" and node._saved_min_val == 0:
            values = node._saved_self.detach().clamp(0, node._saved_max_val)
            return Origin("relu", values, _unit_dim(node, values))
        if not name.startswith(_PASSED) and not _is_mask(node, name):
            return None
        node = node.next_functions[0][0]
    return None


def is_of_batch(tensor: Tensor) -> bool:
    """Return whether a batch may have a say in a tensor with a graph; else it is made of parameters, as a query is.

    Whatever has no gradient may come from the batch. But added or multiplied to what enters a layer, with nothing in
    between that could make samples alike, it would show: where it does not, it is a constant of the model.

    Example:
        >>> import torch
        >>> query, weight = torch.ones(1, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
        >>> is_of_batch(2.0 * query.expand(4, 2)), is_of_batch(torch.ones(4, 2) @ weight)
        (False, True)
    """
    pending: list[tuple[Any, bool]] = [(tensor.grad_fn, True)]
    seen: set[tuple[Any, bool]] = set()
    while pending:
        node, is_plain = pending.pop()
        name = node.name()
        if name.startswith(_LOOKED_UP):
            return True
        is_plain = is_plain and name.startswith(_PLAIN)
        for following, _ in node.next_functions:
            if following is None and not is_plain:
                return True
            if following is not None and (following, is_plain) not in seen:
                seen.add((following, is_plain))
                pending.append((following, is_plain))
    return False


def channels_of(tensor: Tensor) -> Tensor | None:
    """Return a tensor that was flattened from [N, C, ...] in that shape; None if it was not flattened."""
    node: Any = tensor.grad_fn
    if node is None or not node.name().startswith(("View", "UnsafeView", "_ReshapeAlias")):
        return None
    shape = tuple(int(size) for size in node._saved_self_sym_sizes)
    return tensor.detach().reshape(shape) if tensor.ndim == 2 and len(shape) > 2 else None


def _is_mask(node: Any, name: str) -> bool:
    # Dropout on the CPU is a product with something that needs no gradient.
    return bool(name == "MulBackward0" and node.next_functions[1][0] is None)


def _unit_dim(node: Any, values: Tensor) -> int:
    if values.ndim != 3:
        return min(1, values.ndim - 1)
    # [N, C, T] after a convolution, [N, T, C] otherwise.
    for _ in range(_FURTHEST_LAYER):
        node = node.next_functions[0][0] if node.next_functions else None
        if node is None:
            break
        if node.name().startswith(_CHANNELS_FIRST):
            return 1
    return 2
