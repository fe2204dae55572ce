"""Tensors inside of a transformation by torch.func (vmap, grad, jvp ...), which hooks on modules may meet.

They are stand-ins: they have no memory, cannot be turned into numbers, and are dead once the transformation ends. So
what watches a model from outside passes them over, as it does the inside of a compiled script.
"""

from torch import Tensor
from torch.func import debug_unwrap


def is_stand_in(tensor: Tensor) -> bool:
    """Return whether a tensor lives only as long as a transformation by torch.func runs.

    Example:
        >>> import torch
        >>> seen = []
        >>> _ = torch.func.vmap(lambda row: seen.append(is_stand_in(row)) or row)(torch.ones(2, 3))
        >>> seen, is_stand_in(torch.ones(3))
        ([True], False)
    """
    return debug_unwrap(tensor) is not tensor
