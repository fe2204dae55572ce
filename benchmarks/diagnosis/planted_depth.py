"""Troubles of depth, in layers and in time: nets whose signal fades or explodes, recurrences that forget or blow up."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, RMSprop

from benchmarks.diagnosis.planted import Build, cross_entropy, flat, images, mse
from benchmarks.diagnosis.subjects import Subject, layers, made
from benchmarks.lr_regret import data, models
from benchmarks.lr_regret.task import heavy

Draw = Callable[[Tensor], Any]


def drawn(
    build: Callable[[], nn.Module], draw: Draw | None, loss_fn: Any, arrays: Callable[[], tuple[Tensor, Tensor]],
    *, optimizer: Any = SGD, lr: float = 0.01,
) -> Build:  # fmt: skip
    """A net whose weights are drawn by `draw`; None leaves torch's default."""

    def model() -> nn.Module:
        net = build()
        for layer in layers(net) if draw is not None else ():
            draw(layer.weight)
        return net

    return lambda seed: made(model, loss_fn, arrays(), seed, optimizer=optimizer, lr=lr)


def chain(
    width: int, depth: int, activation: Callable[[], nn.Module], ends: tuple[int, int]
) -> Callable[[], nn.Module]:
    return partial(models.mlp, ends[0], *[width] * depth, ends[1], activation=activation)


def plain_cnn(channels: int, depth: int, activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Convolutions of one width without normalisation, then a mean over the image."""

    def build() -> nn.Module:
        body: list[nn.Module] = []
        for index in range(depth):
            body += [nn.Conv2d(1 if index == 0 else channels, channels, 3, padding=1), activation()]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))

    return build


class Shortcuts(nn.Module):
    """Residual blocks without normalisation: the sum grows at every block."""

    def __init__(self, num_inputs: int, width: int, depth: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        hidden = torch.relu(self.first(inputs))
        for block in self.blocks:
            hidden = hidden + torch.relu(block(hidden))
        return self.head(hidden)


def gain(value: float) -> Draw:
    return lambda weight: nn.init.xavier_normal_(weight, gain=value)


def he(times: float) -> Draw:
    return lambda weight: nn.init.kaiming_normal_(weight).data.mul_(times)


def gaussian(std: float) -> Draw:
    return lambda weight: nn.init.normal_(weight, std=std)


# -- recurrences -------------------------------------------------------------------------------------------------------


def orthogonal(weight: Tensor) -> None:
    nn.init.orthogonal_(weight)


def identity(weight: Tensor) -> None:
    nn.init.eye_(weight)


def rotation(weight: Tensor) -> None:
    """Turn pairs of units by angles spread over the circle."""
    with torch.no_grad():
        weight.zero_()
        for i in range(0, len(weight) - 1, 2):
            angle = torch.tensor(0.1 + 3.0 * i / len(weight))
            weight[i, i] = weight[i + 1, i + 1] = torch.cos(angle)
            weight[i + 1, i], weight[i, i + 1] = torch.sin(angle), -torch.sin(angle)


def symmetric(weight: Tensor) -> None:
    """A symmetric matrix whose eigenvalues are +1 and -1."""
    nn.init.orthogonal_(weight)
    signs = torch.ones(len(weight))
    signs[::3] = -1.0
    with torch.no_grad():
        weight.copy_(weight @ torch.diag(signs) @ weight.T)


class LastState(nn.Module):
    """A tanh or ReLU recurrence whose outputs are read from the last state."""

    def __init__(
        self, num_inputs: int, width: int, num_outputs: int, draw: Callable[[Tensor], None], factor: float,
        *, input_scale: float, nonlinearity: str = "tanh",
    ) -> None:  # fmt: skip
        super().__init__()
        self.core = nn.RNN(num_inputs, width, batch_first=True, nonlinearity=nonlinearity)
        self.head = nn.Linear(width, num_outputs)
        draw(self.core.weight_hh_l0)
        with torch.no_grad():
            self.core.weight_hh_l0.mul_(factor)
            self.core.weight_ih_l0.mul_(input_scale)
            self.core.bias_ih_l0.zero_()
            self.core.bias_hh_l0.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return self.head(self.core(inputs)[0][:, -1])


class CellLoop(nn.Module):
    """The same with an RNNCell in a loop of one's own."""

    def __init__(
        self, num_inputs: int, width: int, num_outputs: int, draw: Callable[[Tensor], None], factor: float,
        *, input_scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cell = nn.RNNCell(num_inputs, width)
        self.head = nn.Linear(width, num_outputs)
        draw(self.cell.weight_hh)
        with torch.no_grad():
            self.cell.weight_hh.mul_(factor)
            self.cell.weight_ih.mul_(input_scale)
            self.cell.bias_ih.zero_()
            self.cell.bias_hh.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        state = inputs.new_zeros(len(inputs), self.cell.hidden_size)
        for step in range(inputs.shape[1]):
            state = self.cell(inputs[:, step], state)
        return self.head(state)


def recurrence(
    build: Callable[..., nn.Module], draw: Callable[[Tensor], None], factor: float, length: int, width: int,
    *, input_scale: float, optimizer: Any = Adam, lr: float = 1e-3, seed_of_data: int, batch_size: int = 16,
    **options: Any,
) -> Build:  # fmt: skip
    """A recurrence that must add two numbers of a long sequence."""

    def subject(seed: int) -> Subject:
        arrays = images(data.adding(length, seed=seed_of_data, num_samples=400))
        model = partial(build, 2, width, 1, draw, factor, input_scale=input_scale, **options)
        return made(model, mse, arrays, seed, batch_size=batch_size, optimizer=optimizer, lr=lr)

    return subject


def forgetful_lstm(length: int, width: int, forget_bias: float, seed_of_data: int) -> Build:
    """An LSTM whose forget gates let the given share through, and whose gates hardly listen to its state."""

    def build() -> nn.Module:
        model = models.Recurrent("LSTM", 2, width, 1)
        core = model.core
        with torch.no_grad():
            core.weight_hh_l0.mul_(0.1)
            core.bias_ih_l0[width : 2 * width] = forget_bias
            core.bias_hh_l0[width : 2 * width] = 0.0
        return model

    return lambda seed: made(build, mse, images(data.adding(length, seed=seed_of_data, num_samples=400)), seed,
                             batch_size=16, optimizer=Adam)  # fmt: skip


def _digits() -> tuple[Tensor, Tensor]:
    return flat(data.digits())


def _fashion() -> tuple[Tensor, Tensor]:
    return flat(data.fashion())


VARIANTS: dict[str, dict[str, dict[str, Build]]] = {
    "development": {
        "deep without normalisation, vanishing": {
            "30 ReLU layers, default weights": drawn(chain(48, 30, nn.ReLU, (64, 10)), None, cross_entropy, _digits,
                                                     lr=0.1),
            "12 sigmoid layers": drawn(chain(32, 12, nn.Sigmoid, (64, 10)), None, cross_entropy, _digits),
            "20 tanh layers of gain 0.5": drawn(chain(40, 20, nn.Tanh, (8, 1)), gain(0.5), mse,
                                                lambda: images(data.regression(8, noise=0.1, seed=120)),
                                                optimizer=heavy),
            "10 layers of std 0.01": drawn(chain(64, 10, nn.ReLU, (64, 10)), gaussian(0.01), cross_entropy, _digits,
                                           optimizer=Adam, lr=1e-3),
            "16 convolutions, default weights": drawn(plain_cnn(12, 16, nn.ReLU), None, cross_entropy,
                                                      lambda: images(data.digits()), optimizer=heavy),
        },
        "deep without normalisation, exploding": {
            "15 ReLU layers, twice He": drawn(chain(48, 15, nn.ReLU, (64, 10)), he(2.0), cross_entropy, _digits),
            "20 tanh layers of gain 4": drawn(chain(40, 20, nn.Tanh, (8, 1)), gain(4.0), mse,
                                              lambda: images(data.regression(8, noise=0.1, seed=121)), optimizer=heavy),
            "10 layers of std 0.5": drawn(chain(64, 10, nn.ReLU, (64, 10)), gaussian(0.5), cross_entropy, _digits,
                                          optimizer=Adam, lr=1e-3),
            "10 convolutions, 2.5 times He": drawn(plain_cnn(12, 10, nn.ReLU), he(2.5), cross_entropy,
                                                   lambda: images(data.digits())),
            "24 shortcuts without normalisation": drawn(partial(Shortcuts, 64, 48, 24, 10), he(1.5), cross_entropy,
                                                        _digits, optimizer=heavy, lr=1e-3),
        },
        "long recurrence, factor 0.9": {
            "orthogonal, 100 steps": recurrence(LastState, orthogonal, 0.9, 100, 32, input_scale=0.3, seed_of_data=130),
            "identity, 80 steps": recurrence(LastState, identity, 0.9, 80, 24, input_scale=0.1, optimizer=heavy,
                                             lr=0.01, seed_of_data=131),
            "rotation, 120 steps": recurrence(LastState, rotation, 0.9, 120, 16, input_scale=0.5, seed_of_data=132),
            "cell in a loop, 80 steps": recurrence(CellLoop, orthogonal, 0.9, 80, 24, input_scale=0.3,
                                                   seed_of_data=133),
            "LSTM, forget gate 0.9, 100 steps": forgetful_lstm(100, 16, 2.2, 134),
        },
        "long recurrence, factor 1.1": {
            "orthogonal, 100 steps": recurrence(LastState, orthogonal, 1.1, 100, 32, input_scale=1e-5,
                                                seed_of_data=135),
            "identity ReLU, 100 steps": recurrence(LastState, identity, 1.1, 100, 24, input_scale=1e-2,
                                                   nonlinearity="relu", optimizer=heavy, lr=1e-4, seed_of_data=136),
            "rotation, 80 steps": recurrence(LastState, rotation, 1.1, 80, 16, input_scale=1e-4, seed_of_data=137),
            "symmetric, 90 steps": recurrence(LastState, symmetric, 1.1, 90, 24, input_scale=1e-4, optimizer=SGD,
                                              lr=1e-3, seed_of_data=138),
            "cell in a loop, 80 steps": recurrence(CellLoop, orthogonal, 1.1, 80, 24, input_scale=1e-4,
                                                   seed_of_data=139),
        },
    },
    "test": {
        "deep without normalisation, vanishing": {
            "24 ReLU layers, default weights": drawn(chain(64, 24, nn.ReLU, (196, 10)), None, cross_entropy, _fashion,
                                                     optimizer=heavy),
            "10 sigmoid layers": drawn(chain(40, 10, nn.Sigmoid, (196, 10)), None, cross_entropy, _fashion, lr=0.1),
            "30 tanh layers of gain 0.6": drawn(chain(32, 30, nn.Tanh, (64, 10)), gain(0.6), cross_entropy, _digits,
                                                optimizer=RMSprop, lr=1e-3),
            "8 layers of std 0.005": drawn(chain(80, 8, nn.ReLU, (10, 1)), gaussian(0.005), mse,
                                           lambda: images(data.regression(10, noise=0.1, seed=140))),
            "20 convolutions, default weights": drawn(plain_cnn(10, 20, nn.ReLU), None, cross_entropy,
                                                      lambda: images(data.fashion()), optimizer=Adam, lr=1e-3),
        },
        "deep without normalisation, exploding": {
            "20 ReLU layers, 1.7 times He": drawn(chain(64, 20, nn.ReLU, (196, 10)), he(1.7), cross_entropy, _fashion,
                                                  optimizer=heavy),
            "30 tanh layers of gain 3": drawn(chain(32, 30, nn.Tanh, (64, 10)), gain(3.0), cross_entropy, _digits),
            "8 layers of std 1": drawn(chain(48, 8, nn.ReLU, (10, 1)), gaussian(1.0), mse,
                                       lambda: images(data.regression(10, noise=0.1, seed=141)), optimizer=Adam),
            "14 convolutions, twice He": drawn(plain_cnn(10, 14, nn.ReLU), he(2.0), cross_entropy,
                                               lambda: images(data.fashion()), optimizer=heavy, lr=1e-3),
            "32 shortcuts without normalisation": drawn(partial(Shortcuts, 196, 40, 32, 10), he(1.4), cross_entropy,
                                                        _fashion, optimizer=Adam, lr=1e-3),
        },
        "long recurrence, factor 0.9": {
            "orthogonal, 120 steps": recurrence(LastState, orthogonal, 0.9, 120, 24, input_scale=0.2, seed_of_data=142,
                                                optimizer=SGD, lr=0.05),
            "identity, 100 steps": recurrence(LastState, identity, 0.9, 100, 32, input_scale=0.05, seed_of_data=143),
            "rotation, 90 steps": recurrence(LastState, rotation, 0.9, 90, 20, input_scale=0.3, optimizer=RMSprop,
                                             seed_of_data=144),
            "cell in a loop, 100 steps": recurrence(CellLoop, symmetric, 0.9, 100, 16, input_scale=0.2,
                                                    seed_of_data=145),
            "LSTM, forget gate 0.88, 120 steps": forgetful_lstm(120, 20, 2.0, 146),
        },
        "long recurrence, factor 1.1": {
            "orthogonal, 120 steps": recurrence(LastState, orthogonal, 1.1, 120, 24, input_scale=1e-6, optimizer=SGD,
                                                lr=1e-3, seed_of_data=147),
            "identity ReLU, 80 steps": recurrence(LastState, identity, 1.1, 80, 32, input_scale=1e-2,
                                                  nonlinearity="relu", seed_of_data=148),
            "rotation, 100 steps": recurrence(LastState, rotation, 1.1, 100, 20, input_scale=1e-5, optimizer=heavy,
                                              lr=1e-3, seed_of_data=149),
            "symmetric, 100 steps": recurrence(LastState, symmetric, 1.1, 100, 16, input_scale=1e-5, seed_of_data=150),
            "cell in a loop, 90 steps": recurrence(CellLoop, identity, 1.1, 90, 24, input_scale=1e-5,
                                                   seed_of_data=151),
        },
    },
}  # fmt: skip
