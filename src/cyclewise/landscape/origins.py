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
