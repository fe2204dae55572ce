"""A model evaluated in another precision than its own also where its forward pass says which one it wants.

A model in bfloat16 often casts its inputs itself, ``x.to(torch.bfloat16)``; measured in float32, on copies of its
weights, it would multiply the two. So while it is measured, a cast to a lower precision is one to the precision of the
measurement.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CASTS: dict[Any, torch.dtype] = {
    Tensor.half: torch.float16,
    Tensor.bfloat16: torch.bfloat16,
    Tensor.float: torch.float32,
}


class AtLeast(TorchFunctionMode):
    """Replace every floating-point type lower than `dtype` that is asked for, while the block runs.

    Example:
        >>> with AtLeast(torch.float32):
        ...     torch.ones(1).bfloat16().dtype, torch.ones(1).to(torch.float16).dtype, torch.ones(1).double().dtype
        (torch.float32, torch.float32, torch.float64)
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func in _CASTS:
            return args[0].to(self._raised(_CASTS[func]), **(kwargs or {}))
        return func(*map(self._raised, args), **{key: self._raised(value) for key, value in (kwargs or {}).items()})

    def _raised(self, value: Any) -> Any:
        is_lower = isinstance(value, torch.dtype) and value.is_floating_point and value.itemsize < self._dtype.itemsize
        return self._dtype if is_lower else value
