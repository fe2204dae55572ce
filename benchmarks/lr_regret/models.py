"""The models of the tasks: small, one of each kind that people train."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU, flatten: bool = True) -> nn.Sequential:
    """Return a multilayer perceptron with the activation between its layers."""
    layers: list[nn.Module] = [nn.Flatten()] if flatten else []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def deep(*widths: int, activation: Callable[[], nn.Module], nonlinearity: str) -> nn.Sequential:
    """Return a deep perceptron whose weights are drawn for its activation, as its users would."""
    model = mlp(*widths, activation=activation)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=nn.init.calculate_gain(nonlinearity))
            nn.init.zeros_(layer.bias)
    return model


def cnn(size: int, channels: Sequence[int], *, norm: bool) -> nn.Sequential:
    """Return a convolutional net for 10 classes of [1, size, size] images, halving at each layer."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip((1, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=not norm)]
        layers += [nn.BatchNorm2d(fan_out)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        size //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * size * size, 10))


class Residual(nn.Module):
    """Two normalised convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return torch.relu(inputs + self.body(inputs))


def resnet(channels: int, num_blocks: int) -> nn.Sequential:
    """Return a small residual net for 10 classes."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1),
        *(Residual(channels) for _ in range(num_blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


class Transformer(nn.Module):
    """Encoder over tokens with learned positions: one output per position, or one per sequence."""

    def __init__(
        self, alphabet: int, length: int, *, width: int = 32, num_layers: int = 2, causal: bool, norm_first: bool,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, alphabet)
        self.mask = nn.Transformer.generate_square_subsequent_mask(length) if causal else None

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the outputs."""
        hidden = self.tokens(symbols) + self.positions
        return self.head(self.encoder(hidden, mask=self.mask))


class Recurrent(nn.Module):
    """LSTM, GRU or plain RNN; predicts after the last step, or at every step of a sequence of symbols."""

    def __init__(
        self, kind: str, num_inputs: int, width: int, num_outputs: int, *, alphabet: int | None = None
    ) -> None:
        super().__init__()
        self.embedding = None if alphabet is None else nn.Embedding(alphabet, num_inputs)
        self.core = getattr(nn, kind)(num_inputs, width, batch_first=True)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        if self.embedding is not None:
            return self.head(self.core(self.embedding(inputs))[0])
        return self.head(self.core(inputs.squeeze(1) if inputs.ndim == 4 else inputs)[0][:, -1])


class Factors(nn.Module):
    """Matrix factorisation with biases: a rating from a user and an item."""

    def __init__(self, num_users: int, num_items: int, width: int, *, scale: float = 0.1) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(num_users, width + 1), nn.Embedding(num_items, width + 1)
        self.offset = nn.Parameter(torch.zeros(()))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=scale)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the outputs."""
        users, items = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        return (users[:, 1:] * items[:, 1:]).sum(1) + users[:, 0] + items[:, 0] + self.offset


class Autoencoder(nn.Module):
    """Encoder and decoder of images, flattened."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*mlp(*widths, *widths[-2::-1]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return self.body(inputs)


class Bag(nn.Module):
    """Mean of the embeddings of a text's words, then a perceptron; word 0 is no word."""

    def __init__(self, num_words: int, width: int, *widths: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, width, padding_idx=0)
        self.body = mlp(width, *widths, flatten=False)

    def forward(self, words: Tensor) -> Tensor:
        """Return the outputs."""
        count = (words > 0).sum(1, keepdim=True).clamp(min=1)
        return self.body(self.words(words).sum(1) / count)


class Reader(nn.Module):
    """A GRU over the embeddings of a text's words, and a linear layer at its end."""

    def __init__(self, num_words: int, width: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, width)
        self.core = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, words: Tensor) -> Tensor:
        """Return the outputs."""
        return self.head(self.core(self.words(words))[0][:, -1])


class Tables(nn.Module):
    """A perceptron over the embeddings of several names, as click models have it."""

    def __init__(self, counts: Sequence[int], width: int, *widths: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in counts)
        self.body = mlp(width * len(counts), *widths, flatten=False)

    def forward(self, names: Tensor) -> Tensor:
        """Return the outputs."""
        return self.body(torch.cat([table(names[:, i]) for i, table in enumerate(self.tables)], 1)).squeeze(1)


class Convolutional(nn.Module):
    """Encoder and decoder of images by convolutions, of the images' own shape."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        down = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in pairwise((1, *channels))]
        up = [
            nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1))
            for a, b in reversed(list(pairwise((1, *channels))))
        ]
        self.body = nn.Sequential(*down, *up)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return self.body(inputs)


def waves(width: int, num_classes: int) -> nn.Sequential:
    """Return a convolutional net over series of shape [1, T]."""
    return nn.Sequential(
        nn.Conv1d(1, width, 7, stride=2), nn.ReLU(), nn.Conv1d(width, width, 5, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4 * width, num_classes),
    )  # fmt: skip


class Patches(nn.Module):
    """A small vision transformer: patches of an image, their positions, layers normalised after, the mean."""

    def __init__(self, size: int, patch: int, *, width: int = 32, num_layers: int = 2, num_classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        hidden = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.encoder(hidden).mean(1))
