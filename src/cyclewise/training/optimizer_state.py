"""Loading an optimizer's state as it was saved: torch gives every tensor the type of its parameter."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def load(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load a state, and keep what is wider than its parameter as wide as it was: master weights, products of floats.

    Raises:
        ValueError: the state is that of other groups.
    """
    optimizer.load_state_dict(saved)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved["state"].items():
        if not isinstance(index, int) or index >= len(parameters) or not isinstance(values, Mapping):
            continue
        own = optimizer.state.get(parameters[index], {})
        for name, value in values.items():
            loaded = own.get(name)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and loaded.dtype != value.dtype:
                own[name] = value.to(loaded.device, copy=True)
