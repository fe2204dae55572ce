"""The data of the tasks: digits, Fashion-MNIST, scikit-learn's tables, text, and made data. All seeded, all on disk."""

import gzip
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_FASHION = Path("/usr/share/datasets/fashion-mnist")
# Files of the standard library: "decimal" is to test on, the others to develop on.
_TEXTS = {"argparse": "argparse.py", "decimal": "_pydecimal.py", "inspect": "inspect.py"}

Split = tuple[Tensor, Tensor, Tensor, Tensor]  # train inputs, train targets, validation inputs, validation targets


@cache
def digits() -> Split:
    """Return 1,347 and 450 images of shape [1, 8, 8], in [0, 1]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split(torch.tensor(images / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels))


@cache
def fashion(num_samples: int = 4000) -> Split:
    """Return three quarters and one quarter of Fashion-MNIST's first images, shape [1, 14, 14], standardised."""
    if not _FASHION.exists():
        raise FileNotFoundError(f"{_FASHION} is missing: apt-get install dataset-fashion-mnist")
    with gzip.open(_FASHION / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + num_samples * 784)[16:], dtype=np.uint8)
    with gzip.open(_FASHION / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + num_samples)[8:], dtype=np.uint8)
    images = torch.tensor(pixels.reshape(-1, 1, 28, 28) / 255.0, dtype=torch.float32)
    images = torch.nn.functional.avg_pool2d(images, 2)
    return split((images - 0.286) / 0.3, torch.tensor(labels, dtype=torch.int64))


@cache
def table(name: str, *, standardise: bool = True) -> Split:
    """Return a table of scikit-learn's: "breast_cancer", "iris", "wine" (classes) or "diabetes" (targets 25 to 346)."""
    import sklearn.datasets

    inputs, targets = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    if standardise:
        inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    kind = torch.float32 if name == "diabetes" else torch.int64
    return split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=kind))


@cache
def clusters(num_samples: int, num_features: int, num_classes: int, *, distance: float, seed: int) -> Split:
    """Return classes whose normal clouds overlap: `distance` is that of two centres, in spreads along one feature."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % num_classes
    centres = torch.randn(num_classes, num_features, generator=generator) * distance / (2.0 * num_features) ** 0.5
    return split(centres[labels] + torch.randn(num_samples, num_features, generator=generator), labels)


@cache
def text(name: str, *, length: int = 32, num_samples: int = 1500) -> tuple[Split, int]:
    """Return windows of characters and the characters that follow each, shape [N, length], and the alphabet's size."""
    source = (Path(sysconfig.get_path("stdlib")) / _TEXTS[name]).read_text()[: length * num_samples + 1]
    alphabet = sorted(set(source))
    codes = torch.tensor([alphabet.index(character) for character in source])
    usable = (len(codes) - 1) // length * length
    return split(codes[:usable].reshape(-1, length), codes[1 : usable + 1].reshape(-1, length)), len(alphabet)


@cache
def regression(num_features: int, *, noise: float, seed: int, condition: float = 1.0, num_samples: int = 1600) -> Split:
    """Return made regression data: a smooth function of the inputs plus noise; features' scales span `condition`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, num_features, generator=generator)
    hidden = torch.tanh(inputs @ torch.randn(num_features, 24, generator=generator) / num_features**0.5)
    targets = hidden @ torch.randn(24, 1, generator=generator) / 2.0
    targets = targets + noise * torch.randn(num_samples, 1, generator=generator)
    return split(inputs * torch.logspace(0, -0.5 * np.log10(condition), num_features), targets)


@cache
def ratings(num_users: int, num_items: int, *, seed: int, num_samples: int = 4000, noise: float = 0.5) -> Split:
    """Return pairs (user, item), shape [N, 2], and ratings of about 1 to 5."""
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(num_users, 4, generator=generator)
    items = torch.randn(num_items, 4, generator=generator)
    pairs = torch.stack(
        [torch.randint(high, (num_samples,), generator=generator) for high in (num_users, num_items)], dim=1
    )
    scores = 3.5 + (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) / 2.0
    return split(pairs, scores + noise * torch.randn(num_samples, generator=generator))


@cache
def adding(length: int, *, seed: int, num_samples: int = 2000) -> Split:
    """Return the adding problem: sequences of (value, marker), shape [N, length, 2]; the target is the marked sum."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(num_samples, length, generator=generator)
    markers = torch.zeros(num_samples, length)
    half = length // 2
    first = torch.randint(half, (num_samples, 1), generator=generator)
    second = half + torch.randint(length - half, (num_samples, 1), generator=generator)
    markers.scatter_(1, first, 1.0).scatter_(1, second, 1.0)
    return split(torch.stack([values, markers], dim=2), (values * markers).sum(1, keepdim=True))


@cache
def reversal(length: int, alphabet: int, *, seed: int, num_samples: int = 2000) -> Split:
    """Return sequences of symbols and the same backwards, shape [N, length]."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(alphabet, (num_samples, length), generator=generator)
    return split(symbols, symbols.flip(1))


def sorting(length: int, alphabet: int, *, seed: int, num_samples: int = 2000) -> Split:
    """Return sequences of symbols and the same in rising order, shape [N, length]."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(alphabet, (num_samples, length), generator=generator)
    return split(symbols, symbols.sort(1).values)


def noisy_labels(data: Split, share: float, *, num_classes: int, seed: int) -> Split:
    """Return the split with a share of the training and the validation labels drawn anew."""
    train_inputs, train_targets, valid_inputs, valid_targets = data
    generator = torch.Generator().manual_seed(seed)

    def redraw(labels: Tensor) -> Tensor:
        chosen = torch.rand(len(labels), generator=generator) < share
        return torch.where(chosen, torch.randint(num_classes, labels.shape, generator=generator), labels)

    return train_inputs, redraw(train_targets), valid_inputs, redraw(valid_targets)


def split(inputs: Tensor, targets: Tensor) -> Split:
    """Set aside a random quarter for validation."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(20261123))
    cut = len(order) // 4
    valid, train = order[:cut], order[cut:]
    return inputs[train], targets[train], inputs[valid], targets[valid]
