"""Made data, and text as bags of words, of the kinds that a range test finds hard."""

import re
import sysconfig
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import torch

from benchmarks.lr_regret.data import Split, split

# Files of the standard library whose lines are told apart.
_FILES = ("inspect.py", "argparse.py", "ast.py", "tarfile.py")


@cache
def lines(num_samples: int, *, num_words: int = 600, length: int = 10, seed: int) -> Split:
    """Return lines of program text as words, shape [N, length], 0 where there is none, and the file each is from."""
    rows, files = [], []
    for label, name in enumerate(_FILES):
        for line in (Path(sysconfig.get_path("stdlib")) / name).read_text().splitlines():
            words = [1 + zlib.crc32(word.encode()) % (num_words - 1) for word in re.findall(r"\w+", line)[:length]]
            if len(words) >= 3:
                rows.append(words + [0] * (length - len(words)))
                files.append(label)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:num_samples]
    return split(torch.tensor(rows)[chosen], torch.tensor(files)[chosen])


@cache
def clicks(num_users: int, num_items: int, num_samples: int, *, seed: int) -> Split:
    """Return pairs (user, item), shape [N, 2], and whether the one clicked the other: groups like groups."""
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randint(4, (count,), generator=generator) for count in (num_users, num_items)]
    liking = 4.0 * torch.randn(4, 4, generator=generator)
    pairs = torch.stack(
        [torch.randint(count, (num_samples,), generator=generator) for count in (num_users, num_items)], 1
    )
    chance = torch.sigmoid(liking[groups[0][pairs[:, 0]], groups[1][pairs[:, 1]]])
    return split(pairs, (torch.rand(num_samples, generator=generator) < chance).float())


@cache
def effects(counts: tuple[int, ...], num_samples: int, *, seed: int) -> Split:
    """Return rows of names, shape [N, len(counts)], and a number that each name moves, and the first two together."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randint(count, (num_samples,), generator=generator) for count in counts], 1)
    groups = [torch.randint(3, (count,), generator=generator) for count in counts[:2]]
    together = torch.randn(3, 3, generator=generator)[groups[0][rows[:, 0]], groups[1][rows[:, 1]]]
    alone = sum(torch.randn(count, generator=generator)[rows[:, i]] for i, count in enumerate(counts))
    return split(rows, together + 0.5 * alone + 0.5 * torch.randn(num_samples, generator=generator))


@cache
def next_words(num_samples: int, *, num_words: int, seed: int) -> Split:
    """Return three words of program text, shape [N, 3], and the word after them; the rarest are all one."""
    source = "".join((Path(sysconfig.get_path("stdlib")) / name).read_text() for name in _FILES)
    words = re.findall(r"\w+", source)
    known = {word: i + 1 for i, (word, _) in enumerate(Counter(words).most_common(num_words - 1))}
    codes = torch.tensor([known.get(word, 0) for word in words])
    first = torch.randperm(len(codes) - 3, generator=torch.Generator().manual_seed(seed))[:num_samples]
    return split(torch.stack([codes[first + i] for i in range(3)], 1), codes[first + 3])


@cache
def impedance(num_samples: int, *, seed: int) -> Split:
    """Return Friedman's second problem (scikit-learn's), features standardised, targets as they are: 0 to 1,700."""
    from sklearn.datasets import make_friedman2

    inputs, targets = make_friedman2(num_samples, noise=30.0, random_state=seed)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    return split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)[:, None])


def amounts(data: Split, factor: float, offset: float) -> Split:
    """Return images with their label, multiplied and moved, as a quantity, shape [N, 1]."""
    train, valid = (offset + factor * labels[:, None].float() for labels in (data[1], data[3]))
    return data[0], train, data[2], valid


@cache
def outliers(num_features: int, num_samples: int, *, seed: int) -> Split:
    """Return a regression whose noise has the heavy tails of Student's t with 1.5 degrees of freedom."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, num_features, generator=generator)
    targets = 2.0 * torch.sin(inputs[:, 0]) + inputs[:, 1].abs() - inputs[:, 2] * inputs[:, 3].sign()
    normal = torch.randn(num_samples, 3, generator=generator)
    noise = 0.3 * normal[:, 0] / (normal[:, 1:].square().mean(1) ** 0.5 + 0.05)
    return split(inputs, (targets + noise)[:, None])


@cache
def spirals(num_samples: int, num_arms: int, *, noise: float, seed: int) -> Split:
    """Return points of arms of a spiral, shape [N, 2], and their arms."""
    generator = torch.Generator().manual_seed(seed)
    arms = torch.arange(num_samples) % num_arms
    radius = torch.rand(num_samples, generator=generator)
    angle = 4.0 * radius + 2.0 * torch.pi * arms / num_arms + noise * torch.randn(num_samples, generator=generator)
    return split(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arms)


@cache
def two_valued(num_samples: int, *, seed: int) -> Split:
    """Return numbers, shape [N, 1], and one of two values that each may have."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 4.0 * torch.rand(num_samples, 1, generator=generator) - 2.0
    sign = torch.randint(2, (num_samples, 1), generator=generator) * 2.0 - 1.0
    return split(inputs, sign * torch.cos(1.5 * inputs) + 0.1 * torch.randn(num_samples, 1, generator=generator))


@cache
def tags(num_features: int, num_tags: int, num_samples: int, *, seed: int) -> Split:
    """Return features, shape [N, num_features], and which of several tags each sample has, as 0.0 and 1.0."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, num_features, generator=generator)
    scores = inputs @ torch.randn(num_features, num_tags, generator=generator) * 3.0 / num_features**0.5 - 1.5
    return split(inputs, (torch.rand(scores.shape, generator=generator) < torch.sigmoid(scores)).float())


@cache
def series(num_samples: int, *, length: int = 48, noise: float = 0.7, seed: int) -> Split:
    """Return noisy waves, shape [N, 1, length], and which of four frequencies each has."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.arange(num_samples) % 4
    phase = 2.0 * torch.pi * torch.rand(num_samples, 1, generator=generator)
    times = torch.arange(length) * 2.0 * torch.pi / length
    waves = torch.sin((kinds[:, None] + 3.0) * times + phase)
    return split((waves + noise * torch.randn(num_samples, length, generator=generator))[:, None], kinds)


def noisy_images(data: Split, *, noise: float, factor: float, seed: int) -> Split:
    """Return images with noise, and without it as targets, both multiplied."""
    generator = torch.Generator().manual_seed(seed)
    clean = data[0], data[2]
    noisy = [images + noise * torch.randn(images.shape, generator=generator) for images in clean]
    return factor * noisy[0], factor * clean[0], factor * noisy[1], factor * clean[1]
