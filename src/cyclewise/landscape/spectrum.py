"""The spectrum of the Hessian within a budget: both ends, the trace, the density and the condition number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyclewise.landscape.density import Density, exact, quadrature
from cyclewise.landscape.lanczos import Krylov, RitzPair, Settled, lanczos, random_start
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.trace import Trace, trace

# Gradient evaluations of the 200 that a diagnosis has by default.
DEFAULT_BUDGET = 150.0
# The dense Hessian takes this many numbers squared, and their cube to solve.
_LARGEST_DENSE = 4096
# Below this depth, a quadrature's nodes are too far apart to show the shape of a density.
_FEWEST_STEPS = 24
# Share of the products that the ends may take; the rest is the trace's. They take it only where the eigenvalues lie
# dense up to the ends; then many share in the sum of |lambda|, and its error is small with few probes.
_LANCZOS_SHARE = 0.8
_TOLERANCE = 0.005
# Length of the random part of a start vector beside the gradient of length 1.
_RANDOM_SHARE = 0.5
_FLOOR = 5e-4
# The trace's standard error that is aimed at, as a fraction of the sum of |lambda|; half of what is promised.
_TRACE_ERROR = 0.025
_MOST_BASIS_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Condition:
    """The largest eigenvalue over the smallest positive one above the numerical null space.

    Attributes:
        value: the ratio, or what it is at least.
        is_lower_bound: whether smaller positive eigenvalues may be hidden in the unresolved part of the spectrum.
    """

    value: float
    is_lower_bound: bool


@dataclass(frozen=True)
class Spectrum:
    """What is known of a Hessian's eigenvalues.

    Attributes:
        largest, smallest: the ends, with residuals and directions [P].
        trace: the sum of the eigenvalues.
        density: their distribution.
        condition: the condition number; None where no eigenvalue is positive beyond rounding.
        is_exact: whether all eigenvalues were computed, from the dense Hessian.
        num_products: Hessian products made.
    """

    largest: RitzPair
    smallest: RitzPair
    trace: Trace
    density: Density
    condition: Condition | None
    is_exact: bool
    num_products: int


def spectrum(objective: Objective, *, budget: float = DEFAULT_BUDGET, seed: int = 0) -> Spectrum:
    """Measure the spectrum of the objective's Hessian.

    All eigenvalues are computed where the budget has a product for each parameter. Otherwise a Lanczos run gives the
    ends and the density, and what it has not seen of the trace is estimated with random probes.

    Args:
        objective: the function.
        budget: gradient evaluations to spend, see :attr:`Objective.cost`; more than the default asks for a smallest
            eigenvalue that is right in itself, not only beside the largest.
        seed: of the random vectors.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batch = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> found = spectrum(Objective(model, torch.nn.functional.mse_loss, [batch]))  # the Hessian is diag(1, 4)
        >>> found.largest.value, found.smallest.value, found.trace.value, found.condition.value
        (4.0, 1.0, 5.0, 4.0)
    """
    size = objective.num_parameters
    if size <= _LARGEST_DENSE and size * objective.column_cost() <= budget:
        return _dense(objective)
    num_products = max(4, int(budget / objective.product_cost()))
    generator = torch.Generator().manual_seed(seed)
    settled = Settled(
        _TOLERANCE, floor=0.0 if budget > DEFAULT_BUDGET else _FLOOR, fewest_steps=min(_FEWEST_STEPS, num_products)
    )
    spaces = [_run(objective, _random(objective, generator), max(3, int(_LANCZOS_SHARE * num_products)), settled)]
    main = spaces[0]
    total, spent = trace(
        objective.product,
        main,
        num_products=num_products - main.num_products,
        wanted_error=_TRACE_ERROR * size * _density(spaces).mean_magnitude(),
        generator=generator,
    )
    spent += main.num_products
    while num_products - spent >= _FEWEST_STEPS:
        spaces.append(_run(objective, _random(objective, generator), _FEWEST_STEPS, None))
        spent += spaces[-1].num_products
    return Spectrum(main.pair(-1), main.pair(0), total, _density(spaces), _condition(main), False, spent)


def sharpness(
    objective: Objective, *, tolerance: float = _TOLERANCE, max_products: int = 60, seed: int = 0
) -> RitzPair:
    """Return the largest eigenvalue of the objective's Hessian alone, with as few products as it takes.

    Lanczos from the gradient, which lies mostly in the few directions of largest curvature (Gur-Ari, Roberts and Dyer,
    arXiv:1812.04754), half mixed with a random vector for those that it has left: a fifth fewer products than from a
    random vector alone, on the networks of `benchmarks/hessian.py`.

    Args:
        objective: the function.
        tolerance: the error aimed at, as a fraction of the eigenvalue.
        max_products: products to stop at in any case.
        seed: of the random vector.
    """
    start = _random(objective, torch.Generator().manual_seed(seed))
    gradient = objective.gradient(before_products=True)
    norm = float(gradient.norm())
    if 0.0 < norm < math.inf:
        start = gradient / norm + _RANDOM_SHARE / float(start.norm()) * start
    return _run(objective, start, max_products, Settled(tolerance, floor=None)).pair(-1)


def _random(objective: Objective, generator: torch.Generator) -> Tensor:
    return random_start(objective.num_parameters, dtype=objective.dtype, device=objective.device, generator=generator)


def _run(objective: Objective, start: Tensor, num_steps: int, is_done: Settled | None) -> Krylov:
    size = objective.num_parameters
    capacity = max(4, _MOST_BASIS_BYTES // (size * start.element_size()))
    return lanczos(objective.product, start, num_steps=num_steps, capacity=capacity, is_done=is_done)


def _density(spaces: Sequence[Krylov]) -> Density:
    return quadrature([space for space in spaces if not space.is_restarted] or list(spaces))


def _dense(objective: Objective) -> Spectrum:
    size = objective.num_parameters
    hessian = objective.products(torch.eye(size, dtype=objective.dtype, device=objective.device)).double()
    values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2.0)
    numbers: NDArray[np.float64] = values.cpu().numpy()
    noise = _noise(objective.dtype, numbers)
    positive = numbers[numbers > size * noise]
    condition = Condition(float(numbers[-1] / positive[0]), is_lower_bound=False) if len(positive) else None
    smallest, largest = (RitzPair(float(numbers[i]), noise, vectors[:, i].to(objective.dtype)) for i in (0, -1))
    return Spectrum(largest, smallest, Trace(float(numbers.sum()), 0.0, 0), exact(numbers), condition, True, size)


def _condition(space: Krylov) -> Condition | None:
    """Return the condition number, or the most that is sure: an eigenvalue lies within a residual of its Ritz value."""
    values, residuals = space.values()
    null = space.basis.shape[1] * _noise(space.basis.dtype, values)
    certain = (values - residuals > null).nonzero()[0]
    if len(certain) == 0:
        return None
    smallest = certain[np.argmin(values[certain] + residuals[certain])]
    value, residual = float(values[smallest]), float(residuals[smallest])
    # An exhausted space holds every eigenvalue; else the smallest may have been found, if it has converged.
    is_resolved = space.following is None or (bool(smallest == 0) and residual <= 0.02 * value)
    return Condition(float(values[-1]) / (value if is_resolved else value + residual), not is_resolved)


def _noise(dtype: torch.dtype, values: NDArray[np.float64]) -> float:
    return torch.finfo(dtype).eps * float(np.abs(values).max(initial=0.0))
