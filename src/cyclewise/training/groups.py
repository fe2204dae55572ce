"""Layer groups: the optimizer's parameter groups, from the input to the output, frozen and driven one by one."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Optimizer

from cyclewise._validation import describe, instance, one_of, positive
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.training.parts import Parts
from cyclewise.training.summary import summarise

# What `slice(rate)` means for the groups before the last, as in fastai.
_BODY_FACTOR = 10.0


class LayerMethods(Parts):
    """What a Learner can be asked about its layers."""

    def freeze(self, *, batch_norm: Literal["train", "eval"] = "train") -> None:
        """Train the last layer group only.

        Args:
            batch_norm: "eval" keeps the BatchNorm layers of frozen groups in eval mode, so that their statistics stay.

        Raises:
            ArgumentError: there is only one layer group.
        """
        if len(self.optimizer.param_groups) < 2:
            raise ArgumentError(
                "freeze() needs at least two layer groups, got 1; pass layer_groups= with optimizer= a function, or "
                "make the Learner with Learner.pretrained"
            )
        self.freeze_to(-1, batch_norm=batch_norm)

    def freeze_to(self, group: int, *, batch_norm: Literal["train", "eval"] = "train") -> None:
        """Train the layer groups from number `group` on; negative numbers count from the end."""
        one_of("batch_norm", batch_norm, ("train", "eval"))
        _freeze_to(self.optimizer, group)
        self.freezes_batch_norm = batch_norm == "eval"

    def unfreeze(self) -> None:
        """Train all layer groups."""
        self.freeze_to(0)

    def summary(self) -> str:
        """Return a table of the layers, their parameters, and what is trained at which rate.

        Raises:
            ArgumentError: a lazy layer does not know its shape yet.
        """
        check_initialised(self.model)
        return summarise(self.model, self.optimizer)


def make_optimizer(
    optimizer: Any, model: nn.Module, layer_groups: Sequence[Sequence[nn.Parameter]] | None
) -> Optimizer:
    """Return the optimizer that was given, or made from the layer groups.

    Raises:
        ArgumentTypeError: what was given is no optimizer, nor makes one.
        ArgumentError: it owns parameters that are not the model's, or there are none.
    """
    groups = [list(model.parameters())] if layer_groups is None else [list(group) for group in layer_groups]
    if optimizer is None or (not isinstance(optimizer, Optimizer) and callable(optimizer)):
        param_groups: list[dict[str, Any]] = [{"params": group} for group in groups]
        optimizer = SGD(param_groups, lr=0.1, momentum=0.9) if optimizer is None else optimizer(param_groups)
    instance(
        "optimizer",
        optimizer,
        Optimizer,
        "a torch.optim.Optimizer or a function that returns one",
        way_out="pass for example torch.optim.SGD(model.parameters(), lr=0.1)",
    )
    assert isinstance(optimizer, Optimizer)
    check_owned(optimizer, model)
    return optimizer


def check_initialised(model: nn.Module) -> None:
    """Raise :class:`ArgumentError` where a lazy layer has not seen a batch, in the words of the range test."""
    if any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        raise ArgumentError(
            "model must have initialised parameters, got a lazy layer that has not seen a batch; "
            "run one batch through the model first"
        )


def check_owned(optimizer: Optimizer, model: nn.Module) -> None:
    """Raise :class:`ArgumentError` where the optimizer has parameters that are not, or no longer, the model's."""
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    of_model = {id(parameter) for parameter in model.parameters()}
    if not owned <= of_model:
        raise ArgumentError(
            f"optimizer must own parameters of this model, got {len(owned - of_model)} of {len(owned)} that are not; "
            "make the optimizer from model.parameters(), after the last change of the model"
        )


def check_trains(optimizer: Optimizer) -> None:
    """Raise :class:`ArgumentError` where none of the optimizer's parameters is trained."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(parameter.requires_grad for parameter in parameters):
        raise ArgumentError(
            f"optimizer must own a parameter that is trained, got {len(parameters)} with requires_grad=False; "
            "call learn.unfreeze(), or requires_grad_(True) on what should be trained"
        )


def _freeze_to(optimizer: Optimizer, first: int) -> None:
    """Let the groups from number `first` on be trained, and none before; negative numbers count from the end.

    Raises:
        ArgumentError: there is no such group.
    """
    groups = optimizer.param_groups
    if isinstance(first, bool) or not isinstance(first, int) or not -len(groups) <= first < len(groups):
        raise ArgumentError(
            f"group must be a number from {-len(groups)} to {len(groups) - 1} ({len(groups)} layer groups), "
            f"got {first!r}; make more groups with layer_groups= or Learner.pretrained"
        )
    for number, group in enumerate(groups):
        trains = number >= first % len(groups)
        for parameter in group["params"]:
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None  # a stale one would be stepped


def frozen_batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return the BatchNorm layers that have parameters, none of which is trained."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and any(True for _ in module.parameters())
        and not any(parameter.requires_grad for parameter in module.parameters())
    ]


def spread(max_lr: Any, num_groups: int) -> list[float]:
    """Return one rate per group.

    Args:
        max_lr: a number for all; a list or array of one per group; ``slice(low, high)``: geometric from the first group
            to the last; ``slice(high)``: high for the last group, a tenth of it for the others.
        num_groups: number of groups.

    Raises:
        ArgumentError: a rate is not above 0, or there are not as many as groups.

    Example:
        >>> [round(rate, 6) for rate in spread(slice(1e-4, 1e-2), 3)]
        [0.0001, 0.001, 0.01]
        >>> spread(slice(0.1), 3)
        [0.01, 0.01, 0.1]
    """
    way_out = "call learn.lr_find() for one"
    if isinstance(max_lr, slice):
        if max_lr.step is not None:
            raise ArgumentError(f"max_lr must be slice(low, high), got {max_lr!r}; leave the third part out")
        high = positive("max_lr", max_lr.stop, way_out="pass slice(low, high), for example slice(1e-5, 1e-3)")
        if max_lr.start is None:
            return [high / _BODY_FACTOR] * (num_groups - 1) + [high]
        low = positive("max_lr", max_lr.start, way_out="pass slice(low, high), for example slice(1e-5, 1e-3)")
        if num_groups == 1:
            return [high]
        between = [low * (high / low) ** (i / (num_groups - 1)) for i in range(1, num_groups - 1)]
        return [low, *between, high]
    # A tensor or array without dimensions is a number.
    is_list = max_lr.ndim > 0 if isinstance(max_lr, (torch.Tensor, np.ndarray)) else isinstance(max_lr, Sequence)
    if is_list and not isinstance(max_lr, str):
        if len(max_lr) != num_groups:
            raise ArgumentError(
                f"max_lr must have one rate per parameter group ({num_groups}), got {len(max_lr)}; "
                "pass one number for all groups"
            )
        return [positive("max_lr", rate, way_out=way_out) for rate in max_lr]
    return [positive("max_lr", max_lr, way_out=way_out)] * num_groups


def check_layer_groups(layer_groups: Any, model: nn.Module) -> list[list[nn.Parameter]] | None:
    """Return the groups as lists of parameters; each may be given as parameters or as modules.

    Raises:
        ArgumentTypeError: they are not lists of parameters or modules.
        ArgumentError: a parameter of the model is in none of them, or in two.
    """
    if layer_groups is None:
        return None
    groups: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    for group in layer_groups:
        members = [group] if isinstance(group, nn.Module) else list(group)
        parameters: list[nn.Parameter] = []
        for member in members:
            if isinstance(member, nn.Module):
                # A tied parameter belongs to the first of its modules.
                parameters.extend(parameter for parameter in member.parameters() if id(parameter) not in seen)
            elif isinstance(member, nn.Parameter):
                parameters.append(member)
            else:
                raise ArgumentTypeError(
                    f"layer_groups must be lists of modules or parameters, got {describe(member)} in one; "
                    "pass for example [[model.body], [model.head]]"
                )
        seen |= {id(parameter) for parameter in parameters}
        groups.append(list({id(parameter): parameter for parameter in parameters}.values()))
    ids = [id(parameter) for group in groups for parameter in group]
    of_model = {id(parameter) for parameter in model.parameters()}
    if len(ids) != len(set(ids)) or set(ids) != of_model or not all(groups):
        raise ArgumentError(
            f"layer_groups must hold every parameter of the model once, got {len(ids)} for {len(of_model)}; "
            "put each module into one group, tied ones into the first"
        )
    return groups
