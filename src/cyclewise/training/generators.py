"""The states of random number generators, as plain values and tensors that can be saved."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cyclewise.restorers import bits_of


def global_rng() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy, torch and CUDA, as plain values and tensors."""
    return {
        "python": random.getstate(),
        "numpy": plain(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_global_rng(states: Mapping[str, Any]) -> None:
    """Put the global generators into the states that :func:`global_rng` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(unplain(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def generator_state(generator: Any) -> Any:
    """Return the state of a generator of torch, NumPy or Python, as plain values or a tensor."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if (bits := bits_of(generator)) is not None:
        return plain(bits.state)
    if isinstance(generator, np.random.RandomState):
        return plain(generator.get_state(legacy=False))
    return generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into the state that :func:`generator_state` returned."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif (bits := bits_of(generator)) is not None:
        bits.state = unplain(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(unplain(state))
    else:
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))


def plain(value: Any) -> Any:
    """Return NumPy arrays and numbers as plain ones, which can be loaded without running code."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item() if isinstance(value, np.generic) else value


def unplain(value: Any) -> Any:
    """Return what :func:`plain` was given, but for NumPy's numbers.

    >>> unplain(plain({"key": np.array([1, 2])}))
    {'key': array([1, 2])}
    """
    if isinstance(value, Mapping):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {key: unplain(item) for key, item in value.items()}
    return value
