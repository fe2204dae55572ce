"""The ends of the spectrum of a symmetric matrix that is only known by its products with vectors.

Lanczos' method: an orthonormal basis V of the Krylov space of a start vector, the small matrix T = V'AV, and the
eigenvalues of T (Ritz values), whose largest and smallest approach those of A from inside. The residual
``|A y - theta y|`` of a Ritz pair bounds the distance from theta to an eigenvalue of A. Every new vector is
orthogonalised against the whole basis (full reorthogonalisation), so a Ritz value is never a ghost of another. Where
the basis outgrows its memory, it is condensed to its outermost Ritz vectors and grows again (thick restart, Wu and
Simon, SIAM J. Matrix Anal. Appl. 22, 2000).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]

# Below this many rounding errors of the largest entry, what is left of a new vector is rounding.
_NOISE = 100.0
_FEWEST_STEPS = 4
# The history of a Ritz value says something of its error from here on.
_FEWEST_FOR_HISTORY = 16


@dataclass(frozen=True)
class RitzPair:
    """An approximate eigenvalue of a matrix A.

    Attributes:
        value: theta.
        residual: ``|A y - theta y|``: there is an eigenvalue of A within this distance.
        vector: y, of length 1, [P].
    """

    value: float
    residual: float
    vector: Tensor


@dataclass(frozen=True)
class Krylov:
    """A Krylov space of A and the restriction of A to it.

    Attributes:
        projected: T = V'AV, [m, m]; tridiagonal and in the order of the steps unless `is_restarted`.
        basis: V', [m, P].
        coupling: what the last product had outside of the space: ``A V = V T + coupling * v e_m'``.
        following: v, the next basis vector, [P]; None where the space is exhausted.
        num_products: products with A that it took.
        is_restarted: whether the basis was condensed on the way; T then is no quadrature rule of the start vector.
    """

    projected: NDArray[np.float64]
    basis: Tensor
    coupling: float
    following: Tensor | None
    num_products: int
    is_restarted: bool

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the Ritz values, rising, and their residuals."""
        values, vectors = np.linalg.eigh(self.projected)
        noise = torch.finfo(self.basis.dtype).eps * float(np.abs(values).max(initial=0.0))
        return values, self.coupling * np.abs(vectors[-1]) + noise

    def pair(self, which: int) -> RitzPair:
        """Return a Ritz pair: 0 for the smallest, -1 for the largest."""
        values, residuals = self.values()
        _, vectors = np.linalg.eigh(self.projected)
        weights = torch.as_tensor(vectors[:, which], dtype=self.basis.dtype, device=self.basis.device)
        vector = weights @ self.basis
        return RitzPair(float(values[which]), float(residuals[which]), vector / vector.norm())


def lanczos(
    matvec: Matvec,
    start: Tensor,
    *,
    num_steps: int,
    capacity: int | None = None,
    is_done: Callable[[NDArray[np.float64], NDArray[np.float64]], bool] | None = None,
) -> Krylov:
    """Return the Krylov space of `start` after up to `num_steps` products.

    Args:
        matvec: returns A times a vector, [P].
        start: the first vector, of any length but 0, [P].
        num_steps: the most products, at least 1.
        capacity: the most basis vectors in memory, at least 4; None keeps all.
        is_done: asked after each step with the Ritz values (rising) and their residuals, [m]; True stops.

    Example:
        >>> diagonal = torch.tensor([-10.0, 1.0, 2.0, 3.0])
        >>> space = lanczos(lambda vector: diagonal * vector, torch.ones(4), num_steps=4)
        >>> [round(space.pair(which).value, 3) for which in (0, -1)]
        [-10.0, 3.0]
    """
    size = len(start)
    num_steps = min(num_steps, size) if capacity is None or capacity >= size else num_steps
    most = min(num_steps, size) if capacity is None else min(max(capacity, 4), num_steps, size)
    basis = torch.empty(most + 1, size, dtype=start.dtype, device=start.device)
    projected = np.zeros((most + 1, most + 1))
    basis[0] = start / start.norm()
    last = num_kept = 0
    is_restarted = False
    for step in range(1, num_steps + 1):
        known = basis[: last + 1]
        new = matvec(known[last]).clone()
        # Against the neighbours first, then once against everything: what is left to remove is small by then.
        near = known if last == num_kept else known[last - 1 :]
        coefficients = near @ new
        new -= coefficients @ near
        rest = known @ new
        new -= rest @ known
        rest[len(known) - len(near) :] += coefficients
        projected[last, last] = float(rest[last])
        coupling = float(new.norm())
        scale = max(float(np.abs(projected).max()), float(coefficients.abs().max()))
        is_exhausted = coupling <= _NOISE * torch.finfo(start.dtype).eps * scale or last + 1 == size
        space = Krylov(
            projected[: last + 1, : last + 1],
            known,
            0.0 if is_exhausted else coupling,
            None if is_exhausted else new / coupling,
            step,
            is_restarted,
        )
        if is_exhausted or step == num_steps or (is_done is not None and is_done(*space.values())):
            break
        if last + 1 == most:
            num_kept = _condense(basis, projected, most, coupling)
            is_restarted = True
            last = num_kept
        else:
            last += 1
            projected[last, last - 1] = projected[last - 1, last] = coupling
        assert space.following is not None
        basis[last] = space.following
    return space


class Settled:
    """Whether the ends of the spectrum have converged, by their residuals and by their standing still.

    Args:
        tolerance: the error aimed at, as a fraction of the eigenvalue itself.
        floor: for the smallest eigenvalue, an error of this fraction of the largest in magnitude is enough; None leaves
            the smallest out.
        fewest_steps: go on until then in any case.
    """

    def __init__(self, tolerance: float, *, floor: float | None, fewest_steps: int = _FEWEST_STEPS) -> None:
        self._tolerance = tolerance
        self._floor = floor
        self._fewest_steps = max(fewest_steps, _FEWEST_STEPS)
        self._ends = (-1,) if floor is None else (-1, 0)
        self._seen: list[tuple[float, ...]] = []

    def __call__(self, values: NDArray[np.float64], residuals: NDArray[np.float64]) -> bool:
        """Return whether all ends have converged, given the Ritz values of one more step, and their residuals."""
        self._seen.append(tuple(float(values[end]) for end in self._ends))
        if len(self._seen) < self._fewest_steps:
            return False
        scale = float(np.abs(values).max())
        for place, end in enumerate(self._ends):
            allowed = self._tolerance * abs(float(values[end]))
            if end == 0 and self._floor is not None:
                allowed = max(allowed, self._floor * scale)
            # Where eigenvalues lie dense up to the end, the error falls with the square of the number of steps: it is a
            # third of what the latter half of the steps has brought. It falls faster everywhere else.
            moved = abs(self._seen[-1][place] - self._seen[len(self._seen) // 2 - 1][place])
            just_moved = abs(self._seen[-1][place] - self._seen[-3][place])
            error = estimated_error(values, residuals, end)
            if residuals[end] > allowed:
                # A Ritz value may stand for several eigenvalues close to each other, as far apart as its residual; what
                # it is then taken for has the gap to none of them.
                error = float(residuals[end])
            if len(self._seen) >= _FEWEST_FOR_HISTORY:
                error = min(error, 0.5 * moved)
            if just_moved > allowed or error > allowed:
                return False
        return True


def estimated_error(values: NDArray[np.float64], residuals: NDArray[np.float64], end: int) -> float:
    """Return the estimated error of the smallest (end 0) or largest (end -1) Ritz value.

    It is at most the residual r, and for an eigenvalue that stands apart from the next by a gap, about r^2 / gap.
    """
    residual = float(residuals[end])
    if len(values) < 2:
        return residual
    gap = float(values[1] - values[0] if end == 0 else values[-1] - values[-2])
    return min(residual, residual**2 / gap) if gap > residual else residual


def random_start(size: int, *, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    """Return a vector of independent normal numbers, the same on every device, [size]."""
    return torch.randn(size, generator=generator, dtype=dtype).to(device)


def _condense(basis: Tensor, projected: NDArray[np.float64], size: int, coupling: float) -> int:
    """Replace the basis by its outermost Ritz vectors, half of its size; return how many."""
    values, vectors = np.linalg.eigh(projected[:size, :size])
    count = size // 2
    low = count // 2
    chosen = [*range(low), *range(size - (count - low), size)]
    weights = torch.as_tensor(vectors[:, chosen].T.copy(), dtype=basis.dtype, device=basis.device)
    basis[:count] = weights @ basis[:size]
    projected[:] = 0.0
    projected[range(count), range(count)] = values[chosen]
    projected[count, :count] = projected[:count, count] = coupling * vectors[-1, chosen]
    return count
