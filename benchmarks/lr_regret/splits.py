"""Splits made of other splits: their targets multiplied, their features of other sizes, their images moved."""

import torch

from benchmarks.lr_regret.data import Split


def images_only(split: Split) -> Split:
    """Return the split with its inputs as targets."""
    return split[0], split[0], split[2], split[2]


def times(split: Split, factor: float) -> Split:
    """Return the split with its targets multiplied."""
    return split[0], factor * split[1], split[2], factor * split[3]


def raw(split: Split, decades: tuple[int, int] = (0, 2)) -> Split:
    """Return the split with features of very different sizes, usually from 1 to 100, and means as far from zero."""
    sizes = torch.logspace(*decades, split[0].shape[1])
    return sizes * (split[0] + 2.0), split[1], sizes * (split[2] + 2.0), split[3]


def classes(split: Split, keep: range) -> Split:
    """Return the samples of some classes, their labels unchanged."""
    train, valid = ((targets >= keep.start) & (targets < keep.stop) for targets in (split[1], split[3]))
    return split[0][train], split[1][train], split[2][valid], split[3][valid]


def shifted(split: Split, pixels: int) -> Split:
    """Return the split with its images moved to the side."""
    return split[0].roll(pixels, -1), split[1], split[2].roll(pixels, -1), split[3]


def few(split: Split, count: int) -> Split:
    """Return the split with its first so many training samples."""
    return split[0][:count], split[1][:count], split[2], split[3]


def moved(split: Split, distance: float) -> Split:
    """Return the split with its targets moved away from zero."""
    return split[0], split[1] + distance, split[2], split[3] + distance


def flat(split: Split) -> Split:
    """Return the split with each image as a vector."""
    return split[0].flatten(1), split[1], split[2].flatten(1), split[3]
