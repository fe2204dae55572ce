"""Troubles of the step: a rate far above the limit, a cliff within one step, gradients that are noise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from benchmarks.diagnosis.planted import Build, cross_entropy, flat, images, mse
from benchmarks.diagnosis.subjects import TASKS, Subject, made, of_task, sharpness
from benchmarks.lr_regret import data, models
from benchmarks.lr_regret.oracle import load
from benchmarks.lr_regret.task import heavy
from cyclewise import Constant

# -- rates -------------------------------------------------------------------------------------------------------------


def too_fast(half: str, name: str, factor: float, *, num_steps: int = 60) -> Build:
    """A task trained for a while at a tenth of its best peak, then given `factor` times what gradient descent bears."""

    def subject(seed: int) -> Subject:
        lr = load(name).best() / 10.0
        found = of_task(TASKS[half][name], seed, policy=Constant(lr=lr, total_steps=1000), num_steps=num_steps)
        momentum = float(found.optimizer.param_groups[0].get("momentum", 0.0))
        return found.set_lr(factor * 2.0 * (1.0 + momentum) / sharpness(found))

    return subject


def too_fast_adaptive(half: str, name: str, factor: float, *, num_steps: int = 100) -> Build:
    """A task trained by Adam or its kin, then given `factor` times its best peak rate."""

    def subject(seed: int) -> Subject:
        best = load(name).best()
        found = of_task(TASKS[half][name], seed, policy=Constant(lr=best / 3.0, total_steps=1000), num_steps=num_steps)
        return found.set_lr(factor * best)

    return subject


# -- noise -------------------------------------------------------------------------------------------------------------


def noisy(
    build: Callable[[], nn.Module], split: Callable[[], data.Split], share: float, num_classes: int, *,
    batch_size: int, num_steps: int, lr: float, optimizer: Any = SGD,
) -> Build:  # fmt: skip
    """Labels drawn anew in part, training that has gone as far as batches of 64 take it, then batches of one or two."""

    def subject(seed: int) -> Subject:
        split_with_noise = data.noisy_labels(split(), share, num_classes=num_classes, seed=300 + seed)
        arrays = images(split_with_noise)
        found = made(build, cross_entropy, arrays, seed, batch_size=64, num_batches=20)
        found.train(num_steps, lr)
        small = made(build, cross_entropy, arrays, seed + 1, batch_size=batch_size, num_batches=24)
        return Subject(found.model, cross_entropy, small.batches, optimizer(found.model.parameters(), lr=lr))

    return subject


def noisy_regression(noise: float, *, batch_size: int, width: int, seed_of_data: int, optimizer: Any = SGD) -> Build:
    """Targets that are mostly noise, fitted as far as they go, then batches of one or two."""

    def subject(seed: int) -> Subject:
        arrays = images(data.regression(6, noise=noise, seed=seed_of_data))
        build = partial(models.mlp, 6, width, 1)
        found = made(build, mse, arrays, seed, batch_size=64, num_batches=18).train(600, 0.05)
        small = made(build, mse, arrays, seed + 1, batch_size=batch_size, num_batches=24)
        return Subject(found.model, mse, small.batches, optimizer(found.model.parameters(), lr=0.01))

    return subject


# -- cliffs ------------------------------------------------------------------------------------------------------------


def cliff(make: Callable[[int], Subject]) -> Build:
    """Draw subjects until one stands at the foot of a cliff: with some weights the limit already forbids the step."""

    def subject(seed: int) -> Subject:
        for attempt in range(10):
            found = at_the_foot(make(seed + 1000 * attempt))
            if found is not None:
                return found
        raise ValueError("no cliff in ten draws")

    return subject


def at_the_foot(found: Subject, *, rise: float = 20.0) -> Subject | None:
    """Give descent the lowest rate (in sixths of a decade) whose step along the gradient multiplies the loss.

    Where a quadratic model with the local curvature would already have the step diverge, it is no cliff but an unstable
    rate: None.
    """
    weights = found.weights
    before = [w.detach().clone() for w in weights]
    start = float(found.loss().detach())
    gradient = torch.autograd.grad(found.loss(), weights, materialize_grads=True)
    limit = 2.0 / sharpness(found)
    for exponent in range(-48, 49):
        lr = 10.0 ** (exponent / 6.0)
        with torch.no_grad():
            for w, old, g in zip(weights, before, gradient, strict=True):
                w.copy_(old - lr * g)
        with torch.no_grad():
            now = float(found.loss().detach())
        if not now < start + rise * abs(start):
            break
    with torch.no_grad():
        for w, old in zip(weights, before, strict=True):
            w.copy_(old)
    if lr > 0.7 * limit:
        return None
    return found.set_lr(lr)


def counts(seed: int, mean: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(512, 6, generator=generator)
    return inputs, torch.poisson(mean * torch.exp(0.3 * inputs[:, :1]), generator=generator)


def poisson(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log likelihood of counts whose log mean the model gives, up to a constant, above zero."""
    return (torch.exp(outputs) - targets * outputs + targets * torch.log(targets + 1.0)).mean()


def on_counts(build: Callable[[], nn.Module], mean: float, seed_of_data: int) -> Build:
    return cliff(lambda seed: made(build, poisson, counts(seed_of_data, mean), seed))


class Powers(nn.Module):
    """Elementwise factors applied again and again: the output is the inputs times a high power."""

    def __init__(self, width: int, depth: int, start: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(start + 0.02 * torch.randn(depth, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return inputs * self.factors.prod(0)


def high_power(width: int, depth: int, start: float, target: float, seed_of_data: int) -> Build:
    inputs = torch.randn(512, width, generator=torch.Generator().manual_seed(seed_of_data))
    return cliff(lambda seed: made(partial(Powers, width, depth, start), mse, (inputs, target * inputs), seed))


def walled(
    wall: Callable[[Tensor], Tensor], build: Callable[[], nn.Module], split: Callable[[], data.Split], *, gap: float
) -> Build:
    """A classifier with a penalty on its largest logit: none here, then within `gap` more than everything."""

    def subject(seed: int) -> Subject:
        found = made(build, cross_entropy, flat(split()), seed)
        with torch.no_grad():
            edge = max(float(found.model(inputs).abs().amax()) for inputs, _ in found.batches) + gap

        def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
            return cross_entropy(outputs, targets) + wall(outputs.abs().amax() - edge)

        return Subject(found.model, loss_fn, found.batches, found.optimizer)

    return cliff(subject)


def exponential(build: Callable[[], nn.Module], log_target: float, seed_of_data: int) -> Build:
    """Squared error of the exponential of what the model gives, against large targets."""
    generator = torch.Generator().manual_seed(seed_of_data)
    inputs = torch.randn(512, 6, generator=generator)
    targets = torch.exp(log_target + 0.3 * inputs[:, :1])
    return cliff(lambda seed: made(build, lambda o, t: mse(torch.exp(o), t), (inputs, targets), seed))


VARIANTS: dict[str, dict[str, dict[str, Build]]] = {
    "development": {
        "rate far above the limit": {
            "mlp, gradient descent, 20 times": too_fast("development", "mlp-cancer-sgd", 20.0),
            "normalised cnn, momentum, 30 times": too_fast("development", "bncnn-fashion-sgdm", 30.0),
            "cnn, gradient descent, 10 times": too_fast("development", "cnn-fashion-sgd", 10.0),
            "mlp, momentum, 50 times, untrained": too_fast("development", "mlp-digits-sgdm", 50.0, num_steps=0),
            "mlp, AdamW, 100 times its best": too_fast_adaptive("development", "mlp-fashion-adamw", 100.0),
        },
        "tiny batch, noisy labels": {
            "mlp on digits, batch 1": noisy(partial(models.mlp, 64, 32, 10), data.digits, 0.5, 10, batch_size=1,
                                            num_steps=400, lr=0.05),
            "cnn on digits, batch 2": noisy(partial(models.cnn, 8, (8, 16), norm=False), data.digits, 0.6, 10,
                                            batch_size=2, num_steps=400, lr=0.05, optimizer=heavy),
            "linear on cancer, batch 1": noisy(partial(models.mlp, 30, 2), partial(data.table, "breast_cancer"), 0.6, 2,
                                               batch_size=1, num_steps=400, lr=0.05),
            "mlp on wine, batch 2": noisy(partial(models.mlp, 13, 16, 3), partial(data.table, "wine"), 0.7, 3,
                                          batch_size=2, num_steps=300, lr=0.05, optimizer=Adam),
            "regression of noise, batch 1": noisy_regression(3.0, batch_size=1, width=24, seed_of_data=160),
        },
        "cliff": {
            "counts of mean 40, linear": on_counts(partial(models.mlp, 6, 1), 40.0, 161),
            "counts of mean 80, mlp": on_counts(partial(models.mlp, 6, 16, 1), 80.0, 162),
            "30th power": high_power(6, 30, 0.8, 1.0, 163),
            "wall of squares": walled(lambda beyond: 1e6 * functional.relu(beyond) ** 2,
                                      partial(models.mlp, 64, 32, 10), data.digits, gap=0.05),
            "exponential of an mlp": exponential(partial(models.mlp, 6, 16, 1), 4.0, 164),
        },
    },
    "test": {
        "rate far above the limit": {
            "mlp, momentum, 20 times": too_fast("test", "mlp-wine-sgdm", 20.0),
            "normalised cnn, gradient descent, 30 times": too_fast("test", "bncnn-digits-sgd", 30.0),
            "autoencoder, momentum, 15 times": too_fast("test", "autoencoder-fashion-sgdm", 15.0),
            "deep tanh, momentum, 40 times, untrained": too_fast("test", "tanh8-fashion-sgdm", 40.0, num_steps=0),
            "transformer, Adam, 100 times its best": too_fast_adaptive("test", "transformer-decimal-adam", 100.0),
        },
        "tiny batch, noisy labels": {
            "mlp on fashion, batch 1": noisy(partial(models.mlp, 196, 32, 10), data.fashion, 0.5, 10, batch_size=1,
                                             num_steps=400, lr=0.02, optimizer=heavy),
            "cnn on fashion, batch 2": noisy(partial(models.cnn, 14, (8, 12), norm=False), data.fashion, 0.6, 10,
                                             batch_size=2, num_steps=300, lr=0.05),
            "linear on wine, batch 1": noisy(partial(models.mlp, 13, 3), partial(data.table, "wine"), 0.7, 3,
                                             batch_size=1, num_steps=400, lr=0.05),
            "mlp on cancer, batch 2": noisy(partial(models.mlp, 30, 24, 2), partial(data.table, "breast_cancer"), 0.6,
                                            2, batch_size=2, num_steps=300, lr=0.05, optimizer=Adam),
            "regression of noise, batch 2": noisy_regression(4.0, batch_size=2, width=32, seed_of_data=170,
                                                             optimizer=Adam),
        },
        "cliff": {
            "counts of mean 60, linear": on_counts(partial(models.mlp, 6, 1), 60.0, 171),
            "counts of mean 30, relu mlp": on_counts(partial(models.mlp, 6, 24, 1), 30.0, 172),
            "40th power": high_power(10, 40, 0.85, 1.5, 173),
            "wall of exponentials": walled(lambda beyond: torch.exp((200.0 * beyond).clamp(max=60.0)),
                                           partial(models.mlp, 196, 24, 10, activation=nn.Tanh), data.fashion,
                                           gap=0.08),
            "exponential of a linear model": exponential(partial(models.mlp, 6, 1), 4.0, 174),
        },
    },
}  # fmt: skip
