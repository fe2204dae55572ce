"""Following the sharpness while the weights move: few Hessian products, begun where the last measurement ended.

Lanczos from the gradient, half mixed with the direction found last. The gradient lies mostly in the few directions of
largest curvature (Gur-Ari, Roberts and Dyer, arXiv:1812.04754), so it is a far better start than a random vector; the
last direction keeps those that the gradient has already left. In a perceptron trained on mini-batches and on all data,
8 products from this start gave the largest eigenvalue to 0.4 % at worst, 6 to 5 % at worst and 0.1 % in the median; 8
from the last direction alone to 8 %, from the gradient alone to 3 %.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cyclewise.landscape.lanczos import lanczos, random_start
from cyclewise.landscape.limits import Felt
from cyclewise.landscape.objective import Objective

_SHARE_OF_LAST = 0.5
_SEED = 0


@dataclass(frozen=True)
class Tracked:
    """The largest eigenvalue of a Hessian, or of what an optimizer feels of it, as a few products show it.

    Attributes:
        sharpness: at most the largest eigenvalue.
        residual: norm of H v - sharpness * v for the unit vector v; an eigenvalue lies within it around the sharpness.
        curvature: along the gradient, g'Hg / g'g.
        direction: v, [P].
    """

    sharpness: float
    residual: float
    curvature: float
    direction: Tensor


def track(
    objective: Objective, *, num_products: int, felt: Felt | None = None, last: Tensor | None = None
) -> Tracked | None:
    """Measure the largest eigenvalue at the present weights.

    Args:
        objective: the loss.
        num_products: Hessian products, at least 2: one along the gradient, the others for the eigenvalue.
        felt: what the optimizer feels of the Hessian; None: the Hessian itself.
        last: direction of the last measurement, [P]; None, or one of another size: a random one of a fixed seed.

    Returns:
        None where the gradient is zero, or something was not finite.
    """
    product = objective.product if felt is None else felt.product
    gradient = objective.gradient() if felt is None else felt.root * objective.gradient()
    norm = float(gradient.norm())
    if not 0.0 < norm < float("inf"):
        return None
    unit = gradient / norm
    curvature = float(torch.dot(unit, product(unit)))
    if not np.isfinite(curvature):
        return None
    if last is None or last.shape != unit.shape:
        generator = torch.Generator().manual_seed(_SEED)
        last = random_start(len(unit), dtype=unit.dtype, device=unit.device, generator=generator)
    start = unit + _SHARE_OF_LAST / float(last.norm()) * last.to(unit)
    space = lanczos(product, start, num_steps=num_products - 1)
    if not np.isfinite(space.projected).all():
        return None
    top = space.pair(-1)
    return Tracked(top.value, top.residual, curvature, top.vector)
