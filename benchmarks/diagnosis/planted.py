"""Troubles of inputs and starting points: bad scales, zero weights, dead units, saturation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from benchmarks.diagnosis.subjects import Subject, below_limit, layers, made
from benchmarks.lr_regret import data, models
from benchmarks.lr_regret.task import heavy

Build = Callable[[int], Subject]
cross_entropy, mse = functional.cross_entropy, functional.mse_loss


def flat(split: data.Split) -> tuple[Tensor, Tensor]:
    """Return the training inputs as vectors, and the targets."""
    return split[0].flatten(1), split[1]


def images(split: data.Split) -> tuple[Tensor, Tensor]:
    """Return the training inputs and targets."""
    return split[0], split[1]


# -- badly scaled inputs: the rate is half of what descent bears, so that only the conditioning is wrong ---------------


def scaled_inputs(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, *, num_steps: int = 0
) -> Build:
    def subject(seed: int) -> Subject:
        found = below_limit(made(build, loss_fn, arrays(), seed), 0.5)
        return below_limit(found.train(num_steps, found.lr), 0.5) if num_steps else found

    return subject


def one_pixel_louder(split: data.Split, pixel: int, factor: float) -> tuple[Tensor, Tensor]:
    inputs, targets = flat(split)
    inputs = inputs.clone()
    inputs[:, pixel] *= factor
    return inputs, targets


def spread(split: data.Split, low: float, high: float) -> tuple[Tensor, Tensor]:
    inputs, targets = flat(split)
    return inputs * torch.logspace(low, high, inputs.shape[1]), targets


def lifted(split: data.Split, offset: float) -> tuple[Tensor, Tensor]:
    inputs, targets = flat(split)
    return inputs + offset, targets


def powers(degree: int, high: float) -> tuple[Tensor, Tensor]:
    x = torch.linspace(0.0, high, 512)[:, None]
    return torch.cat([x**k for k in range(1, degree + 1)], dim=1), torch.sin(x)


class Bowl(nn.Module):
    """The square of a rotated, stretched vector of parameters; the inputs only scatter its minimum."""

    def __init__(self, eigenvalues: Tensor) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)))
        self.stretch = nn.Parameter(eigenvalues.abs().sqrt()[:, None] * rotation, requires_grad=False)
        self.signs = nn.Parameter(eigenvalues.sign(), requires_grad=False)
        self.weight = nn.Parameter(torch.randn(len(eigenvalues)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return one value per sample, whose mean is the loss."""
        return 0.5 * (self.signs * ((self.weight - inputs) @ self.stretch.T) ** 2).sum(1)


def bowl(eigenvalues: Callable[[], Tensor]) -> Build:
    size = len(eigenvalues())
    arrays = 0.01 * torch.randn(256, size, generator=torch.Generator().manual_seed(5)), torch.zeros(256)
    return lambda seed: below_limit(made(lambda: Bowl(eigenvalues()), lambda o, _: o.mean(), arrays, seed), 0.5)


# -- zero initialisation -----------------------------------------------------------------------------------------------


def zero_weights(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, **options: Any
) -> Build:
    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays(), seed, **options)
        with torch.no_grad():
            for weight in found.weights:
                if weight.ndim > 1:
                    weight.zero_()
        return found

    return subject


# -- dead units --------------------------------------------------------------------------------------------------------


def dead(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, layer: int,
    *, share: float = 1.0, optimizer: Any = SGD, lr: float = 0.05,
) -> Build:  # fmt: skip
    """Biases so low that a share of one layer's units never fires."""

    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays(), seed, optimizer=optimizer, lr=lr)
        bias = layers(found.model)[layer].bias
        with torch.no_grad():
            bias[: round(share * len(bias))] -= 100.0
        return found

    return subject


def negative(
    build: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]], loss_fn: Any, layer: int
) -> Build:
    """Weights below zero on inputs that never are: the units of that layer never fire."""

    def subject(seed: int) -> Subject:
        found = made(build, loss_fn, arrays(), seed, lr=0.05)
        damaged = layers(found.model)[layer]
        with torch.no_grad():
            damaged.weight.copy_(-damaged.weight.abs())
            damaged.bias.copy_(-damaged.bias.abs() - 0.01)
        return found

    return subject


# -- saturation --------------------------------------------------------------------------------------------------------


class Through(nn.Module):
    """A net followed by a function of its outputs."""

    def __init__(self, body: nn.Module, after: Callable[[Tensor], Tensor], *, bias: float) -> None:
        super().__init__()
        self.body = body
        self.after = after
        with torch.no_grad():
            layers(body)[-1].bias.add_(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return self.after(self.body(inputs))


def saturated(
    widths: tuple[int, ...], after: Callable[[Tensor], Tensor], bias: float, loss_fn: Any,
    arrays: Callable[[], tuple[Tensor, Tensor]], *, activation: Callable[[], nn.Module] = nn.Tanh, **options: Any,
) -> Build:  # fmt: skip
    def subject(seed: int) -> Subject:
        return made(
            lambda: Through(models.mlp(*widths, activation=activation), after, bias=bias), loss_fn, arrays(), seed,
            **options,
        )  # fmt: skip

    return subject


def in_unit_interval(split: data.Split) -> tuple[Tensor, Tensor]:
    return split[0], (split[1] > split[1].median()).float() * 0.2


def one_hot_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of probabilities."""
    return mse(outputs, functional.one_hot(targets, outputs.shape[1]).float())


def bump_error(width: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that no longer falls far from the target, as of a robust regression."""
    return lambda outputs, targets: (1.0 - torch.exp(-(((outputs - targets) / width) ** 2))).mean()


_digits, _fashion = partial(data.digits), partial(data.fashion)
regression = partial(data.regression, 8, noise=0.1)


def _log(low: float, high: float, size: int) -> Callable[[], Tensor]:
    return lambda: torch.logspace(low, high, size)


VARIANTS: dict[str, dict[str, dict[str, Build]]] = {
    "development": {
        "badly scaled inputs": {
            "raw cancer table": scaled_inputs(
                partial(models.mlp, 30, 32, 2), lambda: flat(data.table("breast_cancer", standardise=False)),
                cross_entropy),
            "one pixel times 300": scaled_inputs(
                partial(models.mlp, 64, 32, 10), lambda: one_pixel_louder(_digits(), 20, 300.0), cross_entropy),
            "pixels 0 to 255": scaled_inputs(
                partial(models.mlp, 64, 32, 10),
                lambda: (255.0 * flat(_digits())[0], flat(_digits())[1]), cross_entropy, num_steps=50),
            "linear, features 1 to 1000": scaled_inputs(
                partial(models.mlp, 8, 1), lambda: spread(regression(seed=60), 0.0, 3.0), mse, num_steps=50),
            "quadratic of condition 1e6": bowl(_log(-3.0, 3.0, 40)),
        },
        "zero initialisation": {
            "relu mlp": zero_weights(partial(models.mlp, 64, 32, 10), lambda: flat(_digits()), cross_entropy, lr=0.1),
            "tanh mlp": zero_weights(partial(models.mlp, 8, 32, 1, activation=nn.Tanh),
                                     lambda: images(regression(seed=61)), mse, lr=0.05),
            "cnn": zero_weights(partial(models.cnn, 8, (8, 16), norm=False), lambda: images(_digits()), cross_entropy,
                                optimizer=heavy, lr=0.02),
            "deep tanh": zero_weights(partial(models.mlp, 64, 32, 32, 32, 10, activation=nn.Tanh),
                                      lambda: flat(_digits()), cross_entropy, lr=0.1),
            "gru": zero_weights(partial(models.Recurrent, "GRU", 8, 16, 10), lambda: images(_digits()), cross_entropy,
                                optimizer=Adam, lr=1e-3),
        },
        "dead ReLUs": {
            "first layer of an mlp": dead(partial(models.mlp, 64, 64, 10), lambda: flat(_digits()), cross_entropy, 0),
            "nine tenths of the second": dead(partial(models.mlp, 64, 64, 64, 10), lambda: flat(_digits()),
                                              cross_entropy, 1, share=0.9),
            "second convolution": dead(partial(models.cnn, 8, (16, 32), norm=False), lambda: images(_digits()),
                                       cross_entropy, 1, optimizer=heavy, lr=0.02),
            "four fifths of a regression": dead(partial(models.mlp, 8, 40, 1), lambda: images(regression(seed=66)),
                                                mse, 0, share=0.8, optimizer=Adam, lr=1e-3),
            "negative weights": negative(partial(models.mlp, 64, 48, 48, 10), lambda: flat(_digits()), cross_entropy,
                                         1),
        },
        "saturated plateau": {
            "sigmoid far on the wrong side": saturated((8, 16, 1), torch.sigmoid, 14.0, mse,
                                                       lambda: in_unit_interval(regression(seed=68)), lr=0.1),
            "tanh far on the wrong side": saturated((8, 16, 1), torch.tanh, -9.0, mse,
                                                    lambda: in_unit_interval(regression(seed=69)), optimizer=Adam),
            "error of saturated probabilities": saturated(
                (64, 32, 10), lambda o: torch.softmax(20.0 * o * torch.arange(1.0, 11.0), 1), 3.0, one_hot_error,
                lambda: flat(_digits()), lr=0.1),
            "robust loss far from its target": saturated((8, 16, 1), lambda o: o, 8.0, bump_error(2.0),
                                                         lambda: images(regression(seed=70)), lr=0.1),
            "clamped outputs": saturated((8, 16, 1), lambda o: torch.clamp(o, -1.0, 1.0), 5.0, mse,
                                         lambda: images(regression(seed=71)), activation=nn.ReLU, lr=0.1),
        },
    },
    "test": {
        "badly scaled inputs": {
            "raw wine table": scaled_inputs(
                partial(models.mlp, 13, 24, 3),
                lambda: flat(data.table("wine", standardise=False)), cross_entropy),
            "one pixel times 500": scaled_inputs(
                partial(models.mlp, 196, 32, 10, activation=nn.LeakyReLU),
                lambda: one_pixel_louder(_fashion(), 100, 500.0), cross_entropy),
            "offset of 100": scaled_inputs(
                partial(models.mlp, 8, 32, 1), lambda: lifted(regression(seed=80), 100.0), mse, num_steps=50),
            "powers up to the fifth": scaled_inputs(partial(models.mlp, 5, 1), lambda: powers(5, 6.0), mse,
                                                    num_steps=50),
            "quadratic of condition 1e5": bowl(_log(-4.0, 1.0, 100)),
        },
        "zero initialisation": {
            "leaky relu mlp": zero_weights(partial(models.mlp, 196, 48, 10, activation=nn.LeakyReLU),
                                           lambda: flat(_fashion()), cross_entropy, lr=0.05),
            "silu mlp": zero_weights(partial(models.mlp, 8, 24, 1, activation=nn.SiLU),
                                     lambda: images(regression(seed=81)), mse, optimizer=Adam),
            "cnn": zero_weights(partial(models.cnn, 14, (12, 24), norm=False), lambda: images(_fashion()),
                                cross_entropy, lr=0.1),
            "deep relu": zero_weights(partial(models.mlp, 196, 40, 40, 40, 40, 10), lambda: flat(_fashion()),
                                      cross_entropy, optimizer=heavy, lr=0.05),
            "lstm": zero_weights(partial(models.Recurrent, "LSTM", 14, 16, 10), lambda: images(_fashion()),
                                 cross_entropy, optimizer=Adam),
        },
        "dead ReLUs": {
            "first layer of an mlp": dead(partial(models.mlp, 196, 48, 10), lambda: flat(_fashion()), cross_entropy, 0,
                                          optimizer=Adam, lr=1e-3),
            "nine tenths of the third": dead(partial(models.mlp, 64, 48, 48, 48, 10), lambda: flat(_digits()),
                                             cross_entropy, 2, share=0.9),
            "first convolution": dead(partial(models.cnn, 14, (12, 24), norm=False), lambda: images(_fashion()),
                                      cross_entropy, 0, lr=0.05),
            "four fifths of an autoencoder": dead(partial(models.mlp, 64, 40, 64), lambda: (flat(_digits())[0],) * 2,
                                                  mse, 0, share=0.8, optimizer=heavy, lr=0.05),
            "negative weights": negative(partial(models.mlp, 64, 40, 10), lambda: flat(_digits()), cross_entropy, 0),
        },
        "saturated plateau": {
            "sigmoid far on the wrong side": saturated((8, 24, 1), torch.sigmoid, 11.0, mse,
                                                       lambda: in_unit_interval(regression(seed=86)), optimizer=heavy,
                                                       lr=0.05),
            "tanh far on the wrong side": saturated((8, 24, 1), torch.tanh, -7.0, mse,
                                                    lambda: in_unit_interval(regression(seed=87)), lr=0.05),
            "error of saturated probabilities": saturated(
                (196, 24, 10), lambda o: torch.softmax(15.0 * o * torch.arange(1.0, 11.0).flip(0), 1), 9.0,
                one_hot_error, lambda: flat(_fashion()), optimizer=Adam),
            "robust loss far from its target": saturated((8, 24, 1), lambda o: o, -7.0, bump_error(1.5),
                                                         lambda: images(regression(seed=88)), lr=0.05),
            "clamped outputs": saturated((8, 24, 1), lambda o: torch.clamp(o, 0.0, 2.0), -6.0, mse,
                                         lambda: images(regression(seed=89)), activation=nn.ReLU, lr=0.1),
        },
    },
}  # fmt: skip
