"""The distribution of a symmetric matrix's eigenvalues, by stochastic Lanczos quadrature.

The Ritz values of a Krylov space, weighed by the squares of the first entries of T's eigenvectors, are the Gauss
quadrature of the spectrum as the start vector sees it; for a random start that is the spectral density on average
(Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017; for networks Ghorbani, Krishnan and Xiao, arXiv:1901.10159).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cyclewise.landscape.lanczos import Krylov

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Density:
    """A distribution of eigenvalues: point masses.

    Attributes:
        nodes: where they are, rising.
        weights: their masses, which sum to 1.
        num_probes: random vectors behind them; 0 where the eigenvalues are exact.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    num_probes: int

    def fraction_below(self, value: float) -> float:
        """Return the fraction of eigenvalues up to `value`.

        >>> Density((-1.0, 2.0), (0.25, 0.75), num_probes=0).fraction_below(0.0)
        0.25
        """
        return float(sum(w for node, w in zip(self.nodes, self.weights, strict=True) if node <= value))

    def mean_magnitude(self) -> float:
        """Return the mean of |lambda|."""
        return float(np.dot(np.abs(self.nodes), self.weights))

    def curve(self, num_points: int = 200, *, width: float = 0.02) -> tuple[Numbers, Numbers]:
        """Return places, [num_points], and the density there, smoothed by a normal kernel.

        Args:
            num_points: how many places, evenly from a little below the smallest to a little above the largest node.
            width: the kernel's standard deviation, as a fraction of the distance between the outermost nodes.
        """
        low, high = self.nodes[0], self.nodes[-1]
        sigma = width * ((high - low) or abs(high) or 1.0)
        places = np.linspace(low - 3.0 * sigma, high + 3.0 * sigma, num_points)
        distances = (places[:, None] - np.array(self.nodes)) / sigma
        kernels = np.exp(-0.5 * distances**2) / (sigma * np.sqrt(2.0 * np.pi))
        return places, kernels @ np.array(self.weights)


def quadrature(spaces: Sequence[Krylov]) -> Density:
    """Return the mean of the spaces' Gauss quadratures; each space from its own random start, not restarted."""
    nodes, weights = [], []
    for space in spaces:
        values, vectors = np.linalg.eigh(space.projected)
        nodes.append(values)
        weights.append(vectors[0] ** 2 / len(spaces))
    return _sorted(np.concatenate(nodes), np.concatenate(weights), len(spaces))


def exact(eigenvalues: Numbers) -> Density:
    """Return the distribution of known eigenvalues."""
    return _sorted(eigenvalues, np.full(len(eigenvalues), 1.0 / len(eigenvalues)), 0)


def _sorted(nodes: Numbers, weights: Numbers, num_probes: int) -> Density:
    order = np.argsort(nodes, kind="stable")
    return Density(tuple(nodes[order].tolist()), tuple(weights[order].tolist()), num_probes)
