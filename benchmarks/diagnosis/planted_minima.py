"""Troubles that only show beside the start: a solution beyond a hump, and two solutions of the same loss."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.diagnosis.planted import Build, cross_entropy, flat, images, mse
from benchmarks.diagnosis.subjects import Subject, below_limit, layers, made, state
from benchmarks.lr_regret import data, models

# Each is trained to near rest and then given a quarter of what descent bears, so that nothing else is wrong.
_SHARE = 0.25
_NUM_STATES = 20
_NUM_PLACES = 16

Change = Callable[[nn.Module, torch.Generator], None]


def permuted(model: nn.Module, generator: torch.Generator) -> None:
    """Exchange the hidden units of each layer: the same function, elsewhere."""
    found = layers(model)
    with torch.no_grad():
        for layer, following in pairwise(found):
            order = torch.randperm(len(layer.bias), generator=generator)
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            # Inputs of a linear layer behind flattened channels come in blocks, one for each channel.
            blocks = following.weight.unflatten(1, (len(order), -1))
            following.weight.copy_(blocks[:, order].flatten(1, 2))


def flipped(model: nn.Module, generator: torch.Generator) -> None:
    """Turn the sign of half of the hidden units of a net of odd activations: the same function, elsewhere."""
    found = layers(model)
    with torch.no_grad():
        for layer, following in pairwise(found):
            chosen = torch.randperm(len(layer.bias), generator=generator)[: len(layer.bias) // 2]
            layer.weight[chosen] *= -1.0
            layer.bias[chosen] *= -1.0
            following.weight[:, chosen] *= -1.0


def moved(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, change: Change, *,
    lr: float, num_steps: int, before: bool,
) -> Build:  # fmt: skip
    """A net trained for `num_steps` steps and then put elsewhere.

    It is told to have begun at its own earliest state from which there is a hump on the way (halfway, where none has
    one), or, unless `before`, at the last one: then that is a second minimum of the same loss.
    """

    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays(), seed)
        states = []
        for _ in range(_NUM_STATES):
            states.append(state(found.model))
            found.train(num_steps // _NUM_STATES, lr)
        states.append(state(found.model))
        change(found.model, torch.Generator().manual_seed(seed))
        humps = (s for s in states[:-1] if before and has_hump(found, s))
        found.start = next(humps, states[_NUM_STATES // 2 if before else -1])
        return below_limit(found, _SHARE)

    return subject


def has_hump(found: Subject, start: dict[str, Tensor]) -> bool:
    """Return whether the loss rises by a fifth of that at the start, on the straight line from there."""
    now = state(found.model)
    losses = []
    for i in range(_NUM_PLACES + 1):
        found.model.load_state_dict({name: torch.lerp(start[name], now[name], i / _NUM_PLACES) for name in now})
        losses.append(float(found.loss().detach()))
    found.model.load_state_dict(now)
    return max(losses) > 1.2 * losses[0] > losses[-1]


def another(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, *, lr: float,
    num_steps: int,
) -> Build:  # fmt: skip
    """Two nets drawn from different seeds and trained alike on the same batches: one stands where the other began."""

    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays(), seed)
        other = made(build, loss_fn, arrays(), seed + 100)
        other.batches = found.batches
        found.start = state(other.train(num_steps, lr).model)
        return below_limit(found.train(num_steps, lr), _SHARE)

    return subject


class Ring(nn.Module):
    """A circular valley around a hill, which falls along the circle towards one of its points."""

    def __init__(self, size: int, *, tilt: float, angle: float) -> None:
        super().__init__()
        self.tilt = tilt
        place = torch.zeros(size)
        place[:2] = torch.tensor([math.cos(angle), math.sin(angle)])
        self.place = nn.Parameter(place)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return one value per sample, whose mean is the loss."""
        place = self.place + inputs
        return (place.square().sum(1) - 1.0) ** 2 + self.tilt * (1.0 - place[:, 0]) + 0.05


class Wave(nn.Module):
    """A sine of unknown frequency: between two frequencies lie others that fit worse."""

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.tensor([frequency]))
        self.height = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the wave's values."""
        return self.height * torch.sin(self.frequency * inputs)


def waves(frequency: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = 10.0 * torch.rand(512, 1, generator=generator) - 5.0
    return times, torch.sin(frequency * times) + 0.1 * torch.randn(512, 1, generator=generator)


def elsewhere(
    before: Callable[[], nn.Module], build: Callable[[], nn.Module], arrays: tuple[Tensor, Tensor], loss_fn: Any,
    *, lr: float, num_steps: int,
) -> Build:  # fmt: skip
    """A model that stands where `build` puts it, after some steps, and began where `before` puts it."""

    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays, seed)
        found.start = state(before())
        return below_limit(found.train(num_steps, lr), _SHARE)

    return subject


def ring(size: int, *, tilt: float, begins: float, ends: float, seed_of_data: int, spread: float = 0.03) -> Build:
    inputs = spread * torch.randn(256, size, generator=torch.Generator().manual_seed(seed_of_data))
    models_at = [partial(Ring, size, tilt=tilt, angle=angle) for angle in (begins, ends)]
    return elsewhere(*models_at, (inputs, torch.zeros(256)), lambda o, _: o.mean(), lr=0.02, num_steps=20)


def wave(begins: float, ends: float, seed_of_data: int) -> Build:
    at = [partial(Wave, frequency) for frequency in (begins, ends)]
    return elsewhere(*at, waves(ends, seed_of_data), mse, lr=0.005, num_steps=20)


def _table(name: str) -> tuple[Tensor, Tensor]:
    return flat(data.table(name))


def _regression(size: int, seed: int) -> tuple[Tensor, Tensor]:
    return images(data.regression(size, noise=0.1, seed=seed))


def _of(*widths: int, activation: Any = nn.ReLU) -> Callable[[], nn.Module]:
    return partial(models.mlp, *widths, activation=activation)


_VARIANTS: dict[str, dict[str, Sequence[tuple[str, Build]]]] = {
    "development": {
        "solution beyond a hump": [
            ("digits, units permuted", moved(_of(64, 32, 10), lambda: flat(data.digits()), cross_entropy, permuted,
                                             lr=0.1, num_steps=400, before=True)),
            ("regression, signs flipped", moved(_of(8, 24, 1, activation=nn.Tanh), lambda: _regression(8, 70), mse,
                                                flipped, lr=0.05, num_steps=400, before=True)),
            ("around a hill", ring(2, tilt=0.3, begins=2.6, ends=0.1, seed_of_data=71)),
            ("frequency", wave(1.45, 3.0, 72)),
        ],
        "two minima of one loss": [
            ("digits, two seeds", another(_of(64, 32, 10), lambda: flat(data.digits()), cross_entropy, lr=0.1,
                                          num_steps=400)),
            ("digits, units permuted", moved(_of(64, 32, 10), lambda: flat(data.digits()), cross_entropy, permuted,
                                             lr=0.1, num_steps=400, before=False)),
            ("regression, signs flipped", moved(_of(8, 24, 1, activation=nn.Tanh), lambda: _regression(8, 73), mse,
                                                flipped, lr=0.05, num_steps=400, before=False)),
            ("both sides of a hill", ring(2, tilt=0.0, begins=3.0, ends=0.1, seed_of_data=74)),
        ],
    },
    "test": {
        "solution beyond a hump": [
            ("fashion, two layers permuted", moved(_of(196, 48, 32, 10), lambda: flat(data.fashion()), cross_entropy,
                                                   permuted, lr=0.05, num_steps=500, before=True)),
            ("cancer table, signs flipped", moved(_of(30, 16, 2, activation=nn.Tanh), lambda: _table("breast_cancer"),
                                                  cross_entropy, flipped, lr=0.05, num_steps=400, before=True)),
            ("around a hill in five dimensions", ring(5, tilt=0.2, begins=-2.4, ends=0.2, seed_of_data=91)),
            ("frequency", wave(4.0, 2.5, 92)),
        ],
        "two minima of one loss": [
            ("regression, two seeds", another(_of(8, 24, 16, 1, activation=nn.Tanh), lambda: _regression(8, 93), mse,
                                              lr=0.05, num_steps=800)),
            ("fashion, two layers permuted", moved(_of(196, 48, 32, 10), lambda: flat(data.fashion()), cross_entropy,
                                                   permuted, lr=0.05, num_steps=500, before=False)),
            ("wine table, signs flipped", moved(_of(13, 16, 3, activation=nn.Tanh), lambda: _table("wine"),
                                                cross_entropy, flipped, lr=0.05, num_steps=300, before=False)),
            ("both sides of a hill in five dimensions", ring(5, tilt=0.0, begins=-3.0, ends=0.2, seed_of_data=94)),
        ],
    },
}  # fmt: skip
VARIANTS: dict[str, dict[str, dict[str, Build]]] = {
    half: {trouble: dict(variants) for trouble, variants in troubles.items()} for half, troubles in _VARIANTS.items()
}
