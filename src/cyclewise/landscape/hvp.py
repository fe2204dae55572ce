"""One product of the Hessian of a loss with a vector, without the Hessian."""

from collections.abc import Sequence

import torch
from torch import Tensor

# What one product costs, in gradient evaluations.
REVERSE_COST = 3.0


def reverse_over_reverse(loss: Tensor, parameters: Sequence[Tensor], vector: list[Tensor]) -> list[Tensor]:
    """Return H v as the gradient of g'v: the gradient g is computed with its graph, and differentiated again."""
    gradient = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    # A loss that is linear in some parameters has a gradient without a graph: no curvature there.
    pairs = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(v) for v in vector]
    gradients, vectors = zip(*pairs, strict=True)
    return list(torch.autograd.grad(gradients, parameters, vectors, materialize_grads=True))
