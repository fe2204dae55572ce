"""Signal and noise from the gradients of some parts of the data: |G|^2 and tr S, and what is not known of them.

The formulas are explained in :mod:`cyclewise.landscape.noise`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cyclewise.errors import ArgumentError

_FEWEST_FOR_ERROR = 3
STD_ERRORS = 2.0


@dataclass(frozen=True)
class Moments:
    """|G|^2 and tr S with their covariance over repetitions: what the gradients of K parts say.

    Attributes:
        signal: |G|^2, unbiased.
        variance: tr S, unbiased.
        covariance: of (signal, variance), 2 x 2, by the jackknife; None for fewer than three parts.
    """

    signal: float
    variance: float
    covariance: tuple[tuple[float, float], tuple[float, float]] | None


def moments_of(gradients: Tensor, counts: Sequence[int]) -> Moments:
    """Return |G|^2 and tr S, unbiased, from the gradients of K parts ([K, P]) of `counts` samples each.

    Raises:
        ArgumentError: there are fewer than two parts.

    Example:
        >>> moments = moments_of(torch.tensor([[1.0], [3.0]]), [1, 1])
        >>> moments.signal, moments.variance  # the unbiased estimate of |G|^2 is the product of the two
        (3.0, 2.0)
    """
    if len(gradients) < 2:
        raise ArgumentError(f"gradients must be those of at least two parts, got {len(gradients)}; split the batch")
    products = Products.of(gradients, counts)
    signal, variance = products.unbiased(torch.arange(len(counts)))
    if len(counts) < _FEWEST_FOR_ERROR:
        return Moments(signal, variance, None)
    left_out = torch.tensor(
        [products.unbiased(torch.tensor([i for i in range(len(counts)) if i != k])) for k in range(len(counts))],
        dtype=torch.float64,
    )
    deviations = left_out - left_out.mean(0)
    covariance = (len(counts) - 1) / len(counts) * deviations.T @ deviations
    (a, b), (c, d) = covariance.tolist()
    return Moments(signal, variance, ((a, b), (c, d)))


@dataclass(frozen=True)
class Products:
    """Inner products of the parts' gradients: all that is asked of them, so that the jackknife is cheap.

    They are those of the deviations from the mean, because the noise may be far smaller than the gradient.
    """

    sizes: Tensor
    squared_mean: Tensor
    with_mean: Tensor
    between: Tensor

    @classmethod
    def of(cls, gradients: Tensor, counts: Sequence[int]) -> "Products":
        """Return those of the gradients of K parts, [K, P], of `counts` samples each."""
        sizes = torch.tensor(counts, dtype=torch.float64)
        mean = ((sizes / sizes.sum()).to(gradients) @ gradients).to(gradients.dtype)
        deviations = gradients - mean
        return cls(
            sizes,
            (mean @ mean).double().cpu(),
            (deviations @ mean).double().cpu(),
            (deviations @ deviations.T).double().cpu(),
        )

    def unbiased(self, rows: Tensor) -> tuple[float, float]:
        """Return |G|^2 and tr S from some of the parts."""
        sizes, between = self.sizes[rows], self.between[rows][:, rows]
        weights = sizes / sizes.sum()
        offset = weights @ between @ weights
        squared = between.diagonal() - 2.0 * (between @ weights) + offset
        variance = (sizes @ squared.clamp(min=0.0)) / (len(rows) - 1)
        squared_mean = self.squared_mean + 2.0 * (weights @ self.with_mean[rows]) + offset
        return float(squared_mean - variance / sizes.sum()), float(variance)


def fieller(
    signal: float, variance: float, covariance: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[float, float | None]:
    """Return the ratios r for which variance - r signal is within two of its standard errors of zero (Fieller)."""
    z = STD_ERRORS**2
    a = signal**2 - z * covariance[0][0]
    half_b = signal * variance - z * covariance[0][1]
    c = variance**2 - z * covariance[1][1]
    root = math.sqrt(max(half_b**2 - a * c, 0.0))
    if a > 0.0 and signal > 0.0:
        return max((half_b - root) / a, 0.0), (half_b + root) / a
    # Neither is told from zero: any ratio.
    if c <= 0.0 or half_b + root <= 0.0:
        return 0.0, None
    return c / (half_b + root), None
