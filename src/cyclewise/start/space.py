"""Spaces of starting points: what may vary around a model's own start, and how a point becomes a model."""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cyclewise._validation import instance
from cyclewise.errors import ArgumentError
from cyclewise.fingerprint import fingerprint
from cyclewise.start.variables import Point, Value, Variable, check_point, untouched

_MODEL = "a torch.nn.Module"


class Space(ABC):
    """What may vary around a model's start.

    Subclass it for a space of your own: say what varies in `variables`, and write a point into a copy of the model in
    :meth:`place`.

    Attributes:
        model: the model whose start is varied; it is never written to.
        variables: what varies.
    """

    model: nn.Module
    variables: tuple[Variable, ...]

    @abstractmethod
    def place(self, model: nn.Module, point: Point) -> None:
        """Write `point` into `model`, a copy of the space's model; called without gradients."""

    @abstractmethod
    def describe(self) -> str:
        """Return in words what varies, and by how much."""

    def checksum(self) -> str:
        """Return what tells this start from others: a checksum of the model's tensors.

        Override it where the same point of another space of the same words would be another start.
        """
        return fingerprint(_parameters_and_buffers(self.model))

    def untouched(self) -> dict[str, Value]:
        """Return the point that leaves the model as it is."""
        return untouched(self.variables)

    def candidate(self, point: Point | None = None) -> nn.Module:
        """Return a new model that starts at `point`; None: the untouched start.

        Raises:
            ArgumentError: the space has no such point.

        >>> from cyclewise.start import LayerGains
        >>> space = LayerGains(nn.Linear(3, 2))
        >>> factor = space.candidate({"gains": (1.0,)}).weight / space.model.weight
        >>> bool(torch.allclose(factor, torch.tensor(10.0)))
        True
        """
        made = copy.deepcopy(self.model)
        if point is not None and point != self.untouched():
            check_point(point, self.variables)
            with torch.no_grad():
                self.place(made, point)
        return made

    def stack(self, points: Sequence[Point]) -> dict[str, Tensor]:
        """Return the trained parameters of all `points`, each of shape ``[len(points), *shape]``.

        A space whose points are sums or products of tensors overrides this by something faster.
        """
        parts: dict[str, list[Tensor]] = {}
        for point in points:
            for name, parameter in trained(self.candidate(point)).items():
                parts.setdefault(name, []).append(parameter.detach())
        return {name: torch.stack(tensors) for name, tensors in parts.items()}

    def __str__(self) -> str:
        return self.describe()


class Product(Space):
    """Several spaces over one model, varied together: a point of each, written in their order.

    Args:
        spaces: two or more spaces over the same model object.

    Raises:
        ArgumentError: there are fewer than two, or they are over different models.

    >>> from cyclewise.start import InitScheme, LayerGains
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> print(Product([InitScheme(model, vary_gain=False), LayerGains(model)]).describe())
    the initial distribution of linear layers (as it is, xavier, he, orthogonal); and
    one factor for each of 2 weight matrices, 0.1 to 10
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        if len(spaces) < 2:
            raise ArgumentError(f"spaces must be two or more, got {len(spaces)}; a single space needs no product")
        for space in spaces:
            instance(
                "spaces", space, Space, "spaces", way_out="pass for example [InitScheme(model), LayerGains(model)]"
            )
        if any(space.model is not spaces[0].model for space in spaces):
            raise ArgumentError("spaces must be over the same model object, got different ones; make them of one model")
        self.model = spaces[0].model
        self.spaces = tuple(spaces)
        counts: dict[str, int] = {}
        self._names: list[dict[str, str]] = []
        variables = []
        for space in spaces:
            names = {}
            for variable in space.variables:
                counts[variable.name] = number = counts.get(variable.name, 0) + 1
                names[variable.name] = variable.name if number == 1 else f"{variable.name} {number}"
                variables.append(dataclasses.replace(variable, name=names[variable.name]))
            self._names.append(names)
        self.variables = tuple(variables)

    def place(self, model: nn.Module, point: Point) -> None:
        """Write the part of each space, in their order."""
        for space, names in zip(self.spaces, self._names, strict=True):
            space.place(model, {name: point[outer] for name, outer in names.items()})

    def describe(self) -> str:
        """Return what each space varies."""
        return "; and ".join(space.describe() for space in self.spaces)

    def checksum(self) -> str:
        """Return the checksums of all spaces."""
        return " ".join(space.checksum() for space in self.spaces)


def check_model(model: Any) -> None:
    """Raise unless `model` is a module with initialised parameters."""
    instance("model", model, nn.Module, _MODEL, way_out="pass the model whose start is to be searched")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ArgumentError(
            "model must have initialised parameters, got a lazy layer that has not seen a batch; "
            "run one batch through the model first"
        )


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters with two dimensions or more, by name.

    Raises:
        ArgumentError: there are none.
    """
    found = {name: parameter for name, parameter in trained(model).items() if parameter.ndim >= 2}
    if not found:
        raise ArgumentError(
            "model must have trained parameters with at least two dimensions, got none; unfreeze some layers first"
        )
    return found


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of parameters and buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in _parameters_and_buffers(model).items()}


def set_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write `values` into `model`, whose tensors keep their identity, device and dtype.

    Raises:
        ArgumentTypeError: `model` is no module.
        ArgumentError: its tensors have other names or shapes; nothing is written then.
    """
    instance("model", model, nn.Module, _MODEL, way_out="pass the model that is to start there")
    own = _parameters_and_buffers(model)
    ours = {name: tuple(tensor.shape) for name, tensor in values.items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if ours != theirs:
        different = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))[:3]
        raise ArgumentError(
            f"model must have the tensors of the model that was searched, got others at {', '.join(different)}; "
            "pass the same architecture"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(values[name])


def _parameters_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    # What else a module adds to its state, by get_extra_state() or a hook, need be no tensor, and is not the start's.
    state = model.state_dict(keep_vars=True)
    own = {id(tensor) for tensor in chain(model.parameters(), model.buffers())}
    return {name: tensor for name, tensor in state.items() if id(tensor) in own}
