"""What a range test must be given: each argument checked, with the way out, before anything is touched."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise._validation import describe, instance, one_of, positive, random_seed, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.loaders import check_loader
from cyclewise.param_groups import read_rates
from cyclewise.stepping import split_batch

_FEWEST_STEPS = 10
# A float32 holds no larger number than 3.4e38.
_HIGHEST_RATE = 1e30


def check_numbers(
    num_steps: Any, total_steps: Any, start_lr: float | None, end_lr: float | None, sweep: Any, seed: Any
) -> None:
    """Refuse numbers of steps, rates and a sweep that make no range test."""
    whole("num_steps", num_steps, minimum=_FEWEST_STEPS, way_out="100 is a good number")
    for name, rate in (("start_lr", start_lr), ("end_lr", end_lr)):
        if rate is not None and positive(name, rate, way_out="leave it out to have it found") > _HIGHEST_RATE:
            raise ArgumentError(f"{name} must be at most {_HIGHEST_RATE}, got {rate!r}; leave it out to have it found")
    if start_lr is not None and end_lr is not None and end_lr <= start_lr:
        raise ArgumentError(f"end_lr must be above start_lr={start_lr!r}, got {end_lr!r}; swap them")
    one_of("sweep", sweep, ("exponential", "linear"))
    if sweep == "linear" and (start_lr is None or end_lr is None):
        raise ArgumentError(
            'sweep must be "exponential" where the range is to be found, got "linear"; pass start_lr= and end_lr='
        )
    random_seed("seed", seed)
    if total_steps is not None:
        whole("total_steps", total_steps, minimum=1, way_out="pass epochs * len(train_loader), or None")


def check(
    model: Any, optimizer: Any, loss_fn: Any, train_loader: Any, train_step: Any, eval_step: Any, valid_loader: Any
) -> tuple[nn.Module, Optimizer]:
    """Return model and optimizer if everything fits together."""
    instance("model", model, nn.Module, "a torch.nn.Module",
             way_out="pass it with train_step= too, so that it can be given back as it was")  # fmt: skip
    instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer",
             way_out="pass it with train_step= too: its rates are what is swept")  # fmt: skip
    if train_loader is None:
        raise ArgumentTypeError("train_loader must be an iterable of batches, got None; pass the loader you train with")
    check_loader(train_loader, name="train_loader")
    if valid_loader is not None:
        check_loader(valid_loader, name="valid_loader")
    if train_step is None:
        if eval_step is not None:
            raise ArgumentError(
                f"eval_step must be left out without train_step=, got {describe(eval_step)}; "
                "held-out batches are scored with loss_fn"
            )
        # A tuple of all inputs and all targets is iterable, and no batch by itself tells whose it is.
        for name, loader in (("train_loader", train_loader), ("valid_loader", valid_loader)):
            if isinstance(loader, (tuple, list)) and loader and isinstance(loader[0], Tensor):
                split_batch(loader[0], name=name)
        _check_owns_some(optimizer, model)
        return model, optimizer
    if not callable(train_step):
        raise ArgumentTypeError(
            f"train_step must be a function batch -> float, got {describe(train_step)}; "
            "let it make one update and return the loss before it"
        )
    if loss_fn is not None:
        raise ArgumentError("loss_fn must be None when train_step= is given, got a loss function; pass one of the two")
    if valid_loader is not None and eval_step is None:
        raise ArgumentError(
            "eval_step must be a function batch -> float when valid_loader is given with train_step=, got None; "
            "pass eval_step=, or leave valid_loader out"
        )
    return model, optimizer


def _check_owns_some(optimizer: Optimizer, model: nn.Module) -> None:
    # Not all: a loss function may have parameters of its own.
    owned = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if owned and not {*owned} & {id(parameter) for parameter in model.parameters()}:
        raise ArgumentError(
            f"optimizer must own parameters of this model, got {len(owned)} that are not its; "
            "make the optimizer from model.parameters(), after the last change of the model"
        )


def check_groups(optimizer: Optimizer) -> None:
    """Refuse groups that no sweep over one factor can move."""
    for i, group in enumerate(optimizer.param_groups):
        if group["lr"] is None:
            raise ArgumentTypeError(
                f"optimizer must have a rate to sweep, got lr=None in group {i}; "
                "give it a number, in Adafactor with relative_step=False"
            )
    # Of the rates only their ratios count, but those do.
    for i, rate in enumerate(read_rates(optimizer)):
        if not 0.0 <= rate < math.inf:
            raise ArgumentError(
                f"optimizer must have rates of at least 0 that are finite, got lr={rate!r} in group {i}; "
                "set them to the ratios that the groups are to have, all 1.0 if they are to be alike"
            )
    for i, group in enumerate(optimizer.param_groups):
        if group.get("maximize"):
            raise ArgumentError(
                f"optimizer must minimise the loss, got maximize=True in group {i}; "
                "negate the loss instead: the updates are the same"
            )


def check_precision(autocast_dtype: Any, scaler: Any, also: Any) -> None:
    """Refuse what is no precision, no scaler and no list."""
    if autocast_dtype is not None:
        instance("autocast_dtype", autocast_dtype, torch.dtype, "a torch.dtype", way_out="pass torch.bfloat16")
    if scaler is not None:
        instance(
            "scaler", scaler, torch.amp.GradScaler, "a torch.amp.GradScaler", way_out="pass torch.amp.GradScaler()"
        )
    instance("also", also, Sequence, "a list of objects", way_out="pass also=[ema]")


def check_own_step(accumulation_steps: Any, autocast_dtype: Any, scaler: Any) -> None:
    """Refuse, beside the user's own step, what only the library's step could do."""
    for name, value, is_given, way_out in (
        ("accumulation_steps", accumulation_steps, accumulation_steps != 1, "accumulate in train_step"),
        ("autocast_dtype", autocast_dtype, autocast_dtype is not None, "use torch.autocast in train_step"),
        ("scaler", scaler, scaler is not None, "use it in train_step, and name it in also="),
    ):
        if is_given:
            raise ArgumentError(f"{name} must be left out when train_step= is given, got {describe(value)}; {way_out}")
