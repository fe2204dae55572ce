"""What makes a start a good one: functions of a model that return a number, lower is better.

Any function ``objective(candidate) -> float`` will do. These hold their batches and give each candidate copies, so that
all candidates see the same ones (common random numbers); the random numbers that they draw, such as the order of the
batches, come from torch's global generator, which a search seeds the same for every candidate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from cyclewise._validation import positive, whole
from cyclewise.copies import copied
from cyclewise.errors import ArgumentError, ArgumentTypeError, SuggestionError
from cyclewise.loaders import Batches
from cyclewise.mismatch import check_loss_fn
from cyclewise.policies import Constant, OneCycle, Policy
from cyclewise.range_test import RangeTest, lr_find
from cyclewise.scheduler import PolicyLR
from cyclewise.start.space import matrices
from cyclewise.state import preserve
from cyclewise.stepping import LossFunction, Step, batch_loss, device_of, evaluating, split_batch, to_device

OptimizerFactory = Callable[[Any], Optimizer]
_SWEEP_STEPS = 50


def short_run(
    loss_fn: LossFunction | None,
    train_loader: Any,
    valid_loader: Any,
    *,
    max_lr: float | RangeTest | Literal["each"],
    num_steps: int = 50,
    optimizer: OptimizerFactory | None = None,
    num_valid_batches: int = 8,
) -> "TrainingRun":
    """Return the objective "held-out loss after a short one-cycle run".

    Args:
        loss_fn: ``loss_fn(outputs, targets)``, or None for batches that are dicts and models that return a loss.
        train_loader: a loader or list of batches; the first `num_steps` are held, and their order is drawn anew for
            every repetition.
        valid_loader: a loader or list of batches to score on; the first `num_valid_batches` are held.
        max_lr: the peak, a range test whose rate is taken, or "each" for a range test of 50 steps per candidate.
        num_steps: steps of the run.
        optimizer: a function ``parameters -> optimizer``; None: SGD with momentum 0.9.
        num_valid_batches: how many batches to score on.

    Raises:
        ArgumentTypeError: `loss_fn` is no function, or a loader is none.
        ArgumentError: an argument has a value that cannot work, or a range test found no rate.

    >>> batches = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(4)]
    >>> objective = short_run(nn.functional.mse_loss, batches, batches, max_lr=0.1, num_steps=5)
    >>> 0 < objective(nn.Linear(3, 1)) < 10
    True
    """
    check_loss_fn(loss_fn)
    if isinstance(max_lr, RangeTest):
        if max_lr.max_lr is None:
            raise SuggestionError(f"max_lr must be a range test that found a rate, got {max_lr}; pass a rate")
        max_lr = max_lr.max_lr
    if max_lr != "each":
        positive("max_lr", max_lr, way_out='pass a rate, what lr_find returned, or "each"')
    steps = whole("num_steps", num_steps, minimum=1, way_out="pass the steps of a short run, for example 50")
    held = _held(train_loader, valid_loader, steps, num_valid_batches)
    policy = None if max_lr == "each" else OneCycle(max_lr=float(max_lr), total_steps=steps, pct_start=0.25)
    return TrainingRun(loss_fn, *held, steps, policy, optimizer or _momentum)


def loss_after(
    loss_fn: LossFunction | None,
    train_loader: Any,
    valid_loader: Any,
    *,
    lr: float,
    num_steps: int = 20,
    optimizer: OptimizerFactory | None = None,
    num_valid_batches: int = 8,
) -> "TrainingRun":
    """Return the objective "held-out loss after `num_steps` steps at the constant rate `lr`"; see :func:`short_run`."""
    check_loss_fn(loss_fn)
    rate = positive("lr", lr, way_out="pass a rate, for example that of lr_find(...).constant_lr")
    steps = whole("num_steps", num_steps, minimum=1, way_out="pass a number of steps, for example 20")
    held = _held(train_loader, valid_loader, steps, num_valid_batches)
    return TrainingRun(loss_fn, *held, steps, Constant(lr=rate, total_steps=steps), optimizer or _momentum)


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Held-out loss after a short run; made by :func:`short_run` and :func:`loss_after`.

    Attributes:
        loss_fn: the loss.
        train_batches, valid_batches: what is trained and scored on.
        num_steps: steps of the run.
        policy: the rates; None finds the peak of a one-cycle for each candidate.
        optimizer: a function ``parameters -> optimizer``.
    """

    loss_fn: LossFunction | None
    train_batches: list[Any]
    valid_batches: list[Any]
    num_steps: int
    policy: Policy | None
    optimizer: OptimizerFactory

    def __call__(self, candidate: nn.Module) -> float:
        """Train the candidate and return its held-out loss; NaN where a loss stops being finite."""
        optimizer = self.optimizer([p for p in candidate.parameters() if p.requires_grad])
        policy: Policy | list[Policy] | None = self.policy
        if policy is None:
            test = lr_find(candidate, optimizer, self.loss_fn, self.train_batches, num_steps=_SWEEP_STEPS,
                           total_steps=self.num_steps, progress=False)  # fmt: skip
            if test.max_lr is None:
                return math.nan
            policy = test.policies(self.num_steps)
        scheduler = PolicyLR(optimizer, policy)
        step = Step(candidate, optimizer, self.loss_fn)
        candidate.train()
        order = [int(i) for _ in range(self._num_passes()) for i in torch.randperm(len(self.train_batches))]
        for index in order[: self.num_steps]:
            loss = step([copied(self.train_batches[index], step.device)])
            if not torch.isfinite(loss):
                return math.nan
            if scheduler.last_epoch < self.num_steps - 1:
                scheduler.step()
        return _mean_loss(candidate, self.loss_fn, self.valid_batches)

    def _num_passes(self) -> int:
        return -(-self.num_steps // len(self.train_batches))


@dataclass(frozen=True, eq=False)
class HeldOutLoss:
    """The loss of the untrained candidate on some batches.

    Many candidates can be scored in one pass, see :meth:`losses` and ``search_start(batched=…)``.

    Args:
        loss_fn: ``loss_fn(outputs, targets)``.
        batches: a list of batches.

    >>> batches = [(torch.zeros(8, 3), torch.ones(8, 1))]
    >>> model = nn.Linear(3, 1, bias=False)
    >>> HeldOutLoss(nn.functional.mse_loss, batches)(model)
    1.0
    """

    loss_fn: LossFunction | None
    batches: list[Any]

    def __post_init__(self) -> None:
        check_loss_fn(self.loss_fn)

    def __call__(self, candidate: nn.Module) -> float:
        """Return the mean loss over the batches, in eval mode."""
        return _mean_loss(candidate, self.loss_fn, self.batches)

    def losses(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the losses ``[n]`` of n candidates; `parameters` have shape ``[n, *shape]``, by name."""
        device = device_of(model)
        placed = [to_device(batch, device) for batch in self.batches]

        def loss(values: dict[str, Tensor]) -> Tensor:
            return _functional_loss(model, self.loss_fn, values, placed)

        with evaluating(model):
            return vmap(loss, randomness="same")(dict(parameters))


@dataclass(frozen=True, eq=False)
class GradientBalance:
    """How unequal the layers learn: the standard deviation of ``log(|gradient| / |weight|)`` over weight matrices.

    0 says that one rate moves every matrix by the same fraction. A matrix whose gradient is zero makes it infinite,
    and the candidate lost.

    Args:
        loss_fn: ``loss_fn(outputs, targets)``.
        batches: a list of batches; gradients are those of the mean loss over them.

    >>> batches = [(torch.randn(8, 3), torch.randn(8, 1))]
    >>> GradientBalance(nn.functional.mse_loss, batches)(nn.Linear(3, 1))
    0.0
    """

    loss_fn: LossFunction | None
    batches: list[Any]

    def __post_init__(self) -> None:
        check_loss_fn(self.loss_fn)

    def __call__(self, candidate: nn.Module) -> float:
        """Return the imbalance."""
        weights = {name: p.detach()[None] for name, p in candidate.named_parameters() if p.requires_grad}
        return float(self.losses(candidate, weights)[0])

    def losses(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the imbalances ``[n]`` of n candidates; `parameters` have shape ``[n, *shape]``, by name."""
        names = list(matrices(model))
        device = device_of(model)
        placed = [to_device(batch, device) for batch in self.batches]
        loss = partial(_functional_loss, model, self.loss_fn, batches=placed)

        def imbalance(values: dict[str, Tensor]) -> Tensor:
            gradients = grad(loss)(values)
            logs = torch.stack([(gradients[name].norm() / values[name].norm()).log() for name in names])
            return logs.std(correction=0)

        with evaluating(model), torch.enable_grad():
            return vmap(imbalance, randomness="same")(dict(parameters)).detach()


def _functional_loss(
    model: nn.Module, loss_fn: LossFunction | None, values: dict[str, Tensor], batches: list[Any]
) -> Tensor:
    def call(*arguments: Any, **named: Any) -> Any:
        return functional_call(model, values, arguments, named)

    # Copied here and not by the callers: within torch.func.grad a model may only write into what was made within it.
    return torch.stack([batch_loss(call, loss_fn, copied(batch)) for batch in batches]).mean()


def _mean_loss(model: nn.Module, loss_fn: LossFunction | None, batches: list[Any]) -> float:
    device = device_of(model)
    with evaluating(model):
        losses = [batch_loss(model, loss_fn, copied(batch, device)) for batch in batches]
        return float(torch.stack(losses).mean())


def _held(train_loader: Any, valid_loader: Any, num_steps: int, num_valid: int) -> tuple[list[Any], list[Any]]:
    number = whole("num_valid_batches", num_valid, minimum=1, way_out="pass the batches to score on, for example 8")
    with preserve(data=(train_loader, valid_loader)):
        return _first(train_loader, num_steps, "train_loader"), _first(valid_loader, number, "valid_loader")


def _first(loader: Any, number: int, name: str) -> list[Any]:
    if loader is None:
        raise ArgumentTypeError(f"{name} must be a loader or a list of batches, got None; pass what there is")
    batches = []
    for batch in Batches(loader, name=name).one_pass():
        if not isinstance(batch, Mapping):
            split_batch(batch, name=name)
        batches.append(copied(batch))
        if len(batches) == number:
            break
    if not batches:
        raise ArgumentError(f"{name} must yield at least one batch, got none; check its data set")
    return batches


def _momentum(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
