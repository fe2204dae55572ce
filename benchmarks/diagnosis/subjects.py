"""What is handed to `diagnose`: a model, its loss, some batches and its optimizer; and plain ways to make one.

Nothing here uses the code that is judged: the largest eigenvalue comes from a power iteration of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from benchmarks.lr_regret.task import Shuffled, Task, draw
from benchmarks.lr_regret.tasks import DEVELOPMENT, TEST
from cyclewise import Policy, PolicyLR
from cyclewise.state import preserve, seed_everything
from cyclewise.stepping import batch_loss

NUM_BATCHES = 8
# Of the range test's tasks, whose batches are larger.
NUM_TASK_BATCHES = 4
TASKS = {"development": {task.name: task for task in DEVELOPMENT}, "test": {task.name: task for task in TEST}}


@dataclass
class Subject:
    """The arguments of one call of `diagnose`; `start` is where training began, None where that is not told."""

    model: nn.Module
    loss_fn: Callable[..., Tensor]
    batches: list[Any]
    optimizer: Optimizer
    start: dict[str, Tensor] | None = None

    def loss(self) -> Tensor:
        """Return the mean loss over the batches, with its graph."""
        return torch.stack([batch_loss(self.model, self.loss_fn, batch) for batch in self.batches]).mean()

    @property
    def weights(self) -> list[Tensor]:
        """The parameters that require a gradient."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def lr(self) -> float:
        """The rate of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, lr: float) -> "Subject":
        """Set the rate of all groups and return the subject."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return self

    def train(self, num_steps: int, lr: float) -> "Subject":
        """Train on the batches in turn at a constant rate and return the subject."""
        self.set_lr(lr)
        for step in range(num_steps):
            self.optimizer.zero_grad()
            batch_loss(self.model, self.loss_fn, self.batches[step % len(self.batches)]).backward()
            self.optimizer.step()
        self.optimizer.zero_grad()
        return self


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's state."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def sharpness(subject: Subject, *, num_steps: int = 40) -> float:
    """Return the Hessian's largest eigenvalue, by power iteration, shifted where the largest magnitude is negative."""
    value = _power_iteration(subject, 0.0, num_steps)
    return value if value > 0 else max(_power_iteration(subject, -value, num_steps) + value, 1e-12)


def _power_iteration(subject: Subject, shift: float, num_steps: int) -> float:
    weights = subject.weights
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    value = 0.0
    for _ in range(num_steps):
        norm = torch.sqrt(torch.stack([(v**2).sum() for v in vector]).sum())
        vector = [v / (norm + 1e-30) for v in vector]
        gradient = torch.autograd.grad(subject.loss(), weights, create_graph=True, materialize_grads=True)
        along = torch.stack([(g * v).sum() for g, v in zip(gradient, vector, strict=True)]).sum()
        product = torch.autograd.grad(along, weights, materialize_grads=True)
        value = float(torch.stack([(p * v).sum() for p, v in zip(product, vector, strict=True)]).sum()) + shift
        vector = [p + shift * v for p, v in zip(product, vector, strict=True)]
    return value


def below_limit(subject: Subject, share: float) -> Subject:
    """Give gradient descent (no momentum) `share` of its largest stable rate and return the subject."""
    return subject.set_lr(share * 2.0 / sharpness(subject))


def made(
    build: Callable[[], nn.Module],
    loss_fn: Callable[..., Tensor],
    arrays: tuple[Tensor, Tensor],
    seed: int,
    *,
    batch_size: int = 32,
    num_batches: int = NUM_BATCHES,
    optimizer: Callable[..., Optimizer] = SGD,
    lr: float = 1e-3,
) -> Subject:
    """Draw weights and batches from `seed`."""
    with preserve():
        seed_everything(500 + seed)
        model = build()
    order = torch.randperm(len(arrays[1]), generator=torch.Generator().manual_seed(seed))
    chosen = order[: batch_size * num_batches].split(batch_size)
    batches = [(arrays[0][indices], arrays[1][indices]) for indices in chosen]
    return Subject(model, loss_fn, batches, optimizer(model.parameters(), lr=lr))


def of_task(task: Task, seed: int, *, policy: Policy | None = None, num_steps: int = 0) -> Subject:
    """Draw a task of the range test's benchmark and train it for `num_steps` steps of `policy`."""
    trial = draw(task, seed)
    model, optimizer = trial.model, trial.optimizer
    start = state(model)
    if policy is not None:
        with preserve():
            seed_everything(3000 + seed)
            scheduler = PolicyLR(optimizer, policy)
            _train(model, optimizer, scheduler, trial.loss_fn, trial.train_loader, num_steps)
    optimizer.zero_grad()
    fresh = Shuffled(*trial.train_loader.arrays, task.batch_size, 7000 + seed)
    batches = [batch for batch, _ in zip(fresh, range(NUM_TASK_BATCHES), strict=False)]
    return Subject(model, trial.loss_fn, batches, optimizer, start)


def _train(
    model: nn.Module, optimizer: Optimizer, scheduler: PolicyLR, loss_fn: Any, loader: Shuffled, num_steps: int
) -> None:
    done = 0
    while done < num_steps:
        for inputs, targets in loader:
            if done == num_steps:
                return
            optimizer.zero_grad()
            loss_fn(model(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
            done += 1


def layers(model: nn.Module, *kinds: type[nn.Module]) -> list[Any]:
    """Return the model's modules of these kinds; Linear and Conv2d where none is given."""
    wanted: Sequence[type[nn.Module]] = kinds or (nn.Linear, nn.Conv2d)
    return [module for module in model.modules() if isinstance(module, tuple(wanted))]
