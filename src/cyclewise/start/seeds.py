"""Which draw of the initial weights: luck, to be searched at random."""

from collections.abc import Callable

import torch
from torch import nn

from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.start.space import Space, check_model, set_values
from cyclewise.start.variables import Draw, Point
from cyclewise.state import preserve, seed_everything


class Seeds(Space):
    """Another draw of the initial weights for each seed. For ``algorithm="RandomSearch"`` only.

    Args:
        model: the model; its own weights are the untouched start.
        make: a function seed -> model of the same architecture; None draws again by the layers' own
            ``reset_parameters()``, as they were made.

    Raises:
        ArgumentTypeError: `make` is no function.
        ArgumentError: `make` is None and the model has parameters outside layers with ``reset_parameters()``.

    >>> print(Seeds(nn.Linear(3, 2)).describe())
    the seed of the initial weights
    """

    def __init__(self, model: nn.Module, make: Callable[[int], nn.Module] | None = None) -> None:
        check_model(model)
        if make is not None and not callable(make):
            raise ArgumentTypeError(
                f"make must be a function seed -> model, got a {type(make).__name__}; pass for example make_model"
            )
        if make is None:
            _check_resettable(model)
        self.model = model
        self.make = make
        self.variables = (Draw("seed"),)

    def place(self, model: nn.Module, point: Point) -> None:
        """Draw the weights again."""
        seed = point["seed"]
        if not isinstance(seed, int):
            return
        with preserve():
            seed_everything(seed)
            if self.make is not None:
                with torch.enable_grad():
                    made = self.make(seed)
                set_values(model, made.state_dict(keep_vars=True))
                return
            for module in model.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()

    def describe(self) -> str:
        """Return what varies."""
        return "the seed of the initial weights"


def _check_resettable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise ArgumentError(
                f"make must be given for a model whose {name or type(module).__name__} has no reset_parameters(), "
                "got None; pass a function seed -> model"
            )
