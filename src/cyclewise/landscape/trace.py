"""The trace of a symmetric matrix that is only known by its products with vectors, with its standard error.

Three sources are added up, each with what the ones before have left over:

- a known subspace, such as a Krylov space, in which the restriction of A is known exactly;
- XTrace (Epperly, Tropp and Webber, arXiv:2301.07825): each of k random probes estimates the trace outside of the space
  that the products of the other k - 1 probes span, and that space's share is exact;
- plain Hutchinson where already k products show that the left over is small: 2 k products would buy nothing.

The estimate is unbiased for a given number of probes. Its spread comes from the trace outside of both spaces, whose
large eigenvalues they have taken out: at most about ``sum|lambda| / (2 k)`` whatever the spectrum, while Hutchinson's
``sqrt(2 / k) |A|_F`` is as large as the trace itself for a matrix of low rank.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclewise.landscape.lanczos import Krylov, Matvec

Numbers = NDArray[np.float64]

# Quantiles of Student's t at 0.99865, the normal's at three standard errors, for 1, 2, ... degrees of freedom.
_STUDENT = (235.8, 19.21, 9.219, 6.620, 5.507, 4.904, 4.530, 4.277, 4.094, 3.957, 3.850, 3.764, 3.694, 3.636, 3.586)
# Probes are drawn in batches of this size, and the spread is looked at after each.
_NUM_AT_ONCE = 8
# Plain Hutchinson goes on where it promises an error of at most this many times the wanted one.
_ENOUGH = 1.6


@dataclass(frozen=True)
class Trace:
    """A trace and how sure it is.

    Attributes:
        value: the estimate.
        std_error: its standard error, rather too large than too small; 0.0 where the trace is exact.
        num_probes: random vectors behind it; 0 where it is exact.
    """

    value: float
    std_error: float
    num_probes: int


def trace(
    matvec: Matvec, known: Krylov, *, num_products: int, wanted_error: float, generator: torch.Generator
) -> tuple[Trace, int]:
    """Estimate the trace of A; return it with the number of products that it took.

    Args:
        matvec: returns A times a vector, [P].
        known: a Krylov space of A.
        num_products: the most products to make, at least 2.
        wanted_error: a standard error that is small enough to stop at.
        generator: of the probes, on the CPU.
    """
    exact = float(np.trace(known.projected))
    size = known.basis.shape[1]
    left = size - len(known.basis)
    if left == 0:
        return Trace(exact, 0.0, 0), 0
    sketch = _Sketch(matvec, known.basis, generator)
    spent = min(_NUM_AT_ONCE, num_products, left)
    sketch.draw(spent)
    best = _plain(exact, sketch)
    takes_range = False
    while best.std_error > wanted_error and sketch.num_probes <= left:
        # Errors fall with the root of the number of probes: where that is too slow, the range of their images is taken.
        # The smallest of several errors, estimates themselves, would be too small; so one method at a time is asked.
        takes_range = (
            takes_range or sketch.num_probes * best.std_error**2 > num_products * (_ENOUGH * wanted_error) ** 2
        )
        if takes_range and num_products - spent >= sketch.num_open > 0:
            spent += sketch.close()
            if sketch.num_probes == left:  # the probes' images span all there is
                return Trace(exact + sketch.xtrace()[0], 0.0, left), spent
            best = _taken(exact, sketch)
            continue
        room = (num_products - spent) // (2 if takes_range else 1)
        count = min(_NUM_AT_ONCE, room, left - sketch.num_probes)
        if count <= 0:
            break
        sketch.draw(count)
        spent += count
        if not takes_range:
            best = _plain(exact, sketch)
    plain = _plain(exact, sketch)
    return (plain if plain.std_error < best.std_error else best), spent


class _Sketch:
    """Random probes in the complement of a known space, and what products with them have told.

    In the letters of the paper: probes Omega [k, P] (rows, here), Y = B Omega, Y = Q R, Z = B Q, with B the restriction
    of A to the complement.
    """

    def __init__(self, matvec: Matvec, known: Tensor, generator: torch.Generator) -> None:
        self._matvec = matvec
        self._known = known
        self._generator = generator
        self._left = known.shape[1] - len(known)
        self._probes: list[Tensor] = []
        self._images: list[Tensor] = []
        self._range: list[Tensor] = []
        self._range_images: list[Tensor] = []

    @property
    def num_probes(self) -> int:
        return len(self._probes)

    @property
    def num_open(self) -> int:
        """How many further products the images of the probes' range take."""
        return self.num_probes - len(self._range)

    def draw(self, count: int) -> None:
        """Draw probes, uniform on the sphere of radius sqrt(dimension) in the complement, and multiply by B."""
        size = self._known.shape[1]
        for _ in range(count):
            probe = torch.randn(size, generator=self._generator, dtype=torch.float64).to(self._known)
            probe = self._outside(probe)
            self._probes.append(probe * (math.sqrt(self._left) / probe.norm()))
            self._images.append(self._outside(self._matvec(self._probes[-1])))

    def close(self) -> int:
        """Multiply the new directions of the probes' images by B; return the number of products."""
        count = self.num_open
        for image in self._images[len(self._range) :]:
            direction = image
            for _ in range(2):  # once is not enough where the image lies nearly in the span of the others
                for known in self._range:
                    direction = direction - (known @ direction) * known
                direction = self._outside(direction)
            length = float(direction.norm())
            self._range.append(direction / length if length > 0 else direction)
            self._range_images.append(self._outside(self._matvec(self._range[-1])))
        return count

    def hutchinson(self) -> tuple[float, float]:
        """Return the trace of B and its standard error, from the quadratic forms of independent probes.

        Their variance is ``2 |B|_F^2``, less what the sphere takes, and ``|B omega|^2`` has the mean ``|B|_F^2``. That
        is known much better than the spread of a few quadratic forms, which are skewed: where they happen to be small,
        their spread is too.
        """
        pairs = zip(self._probes, self._images, strict=True)
        forms = np.array([float((probe @ image).double()) for probe, image in pairs])
        squares = np.array([float(image.double().square().sum()) for image in self._images])
        mean, count, size = float(forms.mean()), len(forms), self._left
        squared_norm = float(squares.mean())
        if count > 1:
            squared_norm += float(squares.std(ddof=1)) / math.sqrt(count)
        variance = 2.0 * size / (size + 2.0) * max(squared_norm - mean**2 / size, 0.0)
        return mean, math.sqrt(variance / count)

    def xtrace(self) -> tuple[float, float]:
        """Return the trace of B and its standard error, from what each probe sees outside of the others' images.

        The probes' estimates share their subspaces and so their errors: their own spread would be far too small where
        the subspace is about to hold the whole range of B. Leaving out each probe once more (the jackknife) says what
        one probe matters, and is too large on average rather than too small (Efron and Stein, Ann. Statist. 9, 1981).
        """
        omega, y = torch.stack(self._probes), torch.stack(self._images)
        q, z = torch.stack(self._range), torch.stack(self._range_images)
        h = _numbers(q @ z.T)
        h = (h + h.T) / 2
        r, w = _numbers(q @ y.T), _numbers(q @ omega.T)
        quadratic = _numbers((omega * y).sum(1))
        count = self.num_probes
        estimate = _xtrace(h, r, w, quadratic, self._left)
        if count < 3:
            return estimate, math.inf
        without = np.empty(count)
        for i in range(count):
            rest = np.delete(np.arange(count), i)
            u, smaller = np.linalg.qr(r[:, rest])
            without[i] = _xtrace(u.T @ h @ u, smaller, u.T @ w[:, rest], quadratic[rest], self._left)
        return estimate, math.sqrt((count - 1) / count * float(np.square(without - without.mean()).sum()))

    def _outside(self, vector: Tensor) -> Tensor:
        return vector - (self._known @ vector) @ self._known


def _xtrace(h: Numbers, r: Numbers, w: Numbers, quadratic: Numbers, size: int) -> float:
    """Return the trace of B: the mean over the probes i of the trace inside and outside of the others' range.

    Args:
        h: Q'BQ, [k, k].
        r: Q'Y, [k, k].
        w: Q'Omega, [k, k].
        quadratic: of each probe, omega'B omega, [k].
        size: the dimension of B.
    """
    # Column i of s is orthogonal to the images of all probes but i.
    s = np.linalg.pinv(r, rcond=1e-15).T
    s /= np.maximum(np.linalg.norm(s, axis=0), 1e-300)
    inside = np.trace(h) - (s * (h @ s)).sum(0)
    c = w - s * (s * w).sum(0)
    outside = quadratic - 2.0 * (r * c).sum(0) + (c * (h @ c)).sum(0)
    # What is left of a probe is uniform on a sphere in the dimensions that are left.
    scale = (size - (len(quadratic) - 1)) / (size - np.square(c).sum(0))
    return float((inside + outside * scale).mean())


def _plain(exact: float, sketch: _Sketch) -> Trace:
    value, error = sketch.hutchinson()
    return Trace(exact + value, error, sketch.num_probes)


def _taken(exact: float, sketch: _Sketch) -> Trace:
    value, error = sketch.xtrace()
    freedom = sketch.num_probes - 1
    widening = (_STUDENT[freedom - 1] if 0 < freedom <= len(_STUDENT) else 3.0 + 9.0 / max(freedom, 1)) / 3.0
    return Trace(exact + value, error * widening, sketch.num_probes)


def _numbers(tensor: Tensor) -> Numbers:
    numbers: Numbers = tensor.double().cpu().numpy()
    return numbers
