"""One thing to train: a task, how it is drawn with a seed, and the losses and optimizers that tasks share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from benchmarks.lr_regret import data
from cyclewise.state import preserve, seed_everything

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Task:
    """One thing to train: everything but the learning rate.

    Attributes:
        name: model-data-optimizer.
        build: makes the model from the global random numbers.
        optimizer: makes the optimizer over parameters; its rate is replaced.
        loss_fn: (outputs, targets) -> scalar.
        split: training and validation tensors.
        batch_size: samples per step.
        total_steps: length of the run.
        kind: what makes the task differ from the others, for the table.
    """

    name: str
    build: Callable[[], nn.Module]
    optimizer: Callable[..., Optimizer]
    loss_fn: Loss
    split: Callable[[], data.Split]
    batch_size: int
    total_steps: int
    kind: str = field(default="")


class Shuffled:
    """Batches of tensors in a new order at each pass, by its own generator; the incomplete last batch is dropped."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, seed: int) -> None:
        self.arrays = inputs, targets
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.arrays[1]) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.arrays[1]), generator=self.generator)
        for indices in order.split(self.batch_size)[: len(self)]:
            yield self.arrays[0][indices], self.arrays[1][indices]


@dataclass
class Trial:
    """A task drawn with one seed, ready to be trained."""

    model: nn.Module
    optimizer: Optimizer
    loss_fn: Loss
    train_loader: Shuffled
    valid: tuple[Tensor, Tensor]


def draw(task: Task, seed: int) -> Trial:
    """Return the task with its weights and the order of its batches drawn from `seed`."""
    train_inputs, train_targets, valid_inputs, valid_targets = task.split()
    with preserve():
        seed_everything(1000 + seed)
        model = task.build()
    optimizer = task.optimizer(model.parameters(), lr=1e-3)
    loader = Shuffled(train_inputs, train_targets, task.batch_size, seed)
    return Trial(model, optimizer, task.loss_fn, loader, (valid_inputs, valid_targets))


def has_momentum(name: str) -> bool:
    """Return whether the task of this name is trained by gradient descent with momentum."""
    return "sgdm" in name or "nesterov" in name


def gaussian_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log likelihood of a Gaussian whose mean and log scale the model gives: goes below zero."""
    mean, log_scale = outputs[:, :1], outputs[:, 1:].clamp(-8.0, 8.0)
    return (log_scale + 0.5 * ((targets - mean) * torch.exp(-log_scale)) ** 2).mean()


def per_symbol(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all positions of all sequences."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def scaled(loss_fn: Loss, factor: float) -> Loss:
    """Return the loss times a constant, as a sum over samples or an odd unit would make it."""
    return lambda outputs, targets: factor * loss_fn(outputs, targets)


def reconstruction(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error against the flattened target."""
    return functional.mse_loss(outputs, targets.flatten(1))


def column(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of a column of outputs against a vector of targets."""
    return functional.mse_loss(outputs.squeeze(1), targets)


def pretrained(
    build: Callable[[], nn.Module], split: Callable[[], data.Split], *, num_steps: int, lr: float = 2e-3,
    fresh_head: bool = False,
) -> Callable[[], nn.Module]:  # fmt: skip
    """Return a builder of models that were trained on other data, once, with fixed seed; a head may be drawn anew."""
    kept: dict[str, Any] = {}

    def train() -> dict[str, Any]:
        with preserve():
            seed_everything(77)
            model = build()
            inputs, targets, _, _ = split()
            loader = Shuffled(inputs, targets, 64, 77)
            optimizer = Adam(model.parameters(), lr=lr)
            done = 0
            while done < num_steps:
                for batch_inputs, batch_targets in loader:
                    optimizer.zero_grad()
                    functional.cross_entropy(model(batch_inputs), batch_targets).backward()
                    optimizer.step()
                    done += 1
            return model.state_dict()

    def make() -> nn.Module:
        if not kept:
            kept.update(train())
        model = build()
        fresh = [tensor.clone() for tensor in list(model.parameters())[-2:]]
        model.load_state_dict(kept)
        if fresh_head:
            with torch.no_grad():
                for tensor, value in zip(list(model.parameters())[-2:], fresh, strict=True):
                    tensor.copy_(value)
        return model

    return make


heavy = partial(SGD, momentum=0.9)
nesterov = partial(SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)
plain = SGD
cross_entropy = functional.cross_entropy
mse = functional.mse_loss
