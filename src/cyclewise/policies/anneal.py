"""From one value to another: the two shapes that the policies are made of.

`fraction` runs from 0 (at `start`) to 1 (at `end`); all values may be floats or arrays.
"""

import math
from typing import Any

from cyclewise.policies.arithmetic import Arithmetic


def cosine(start: Any, end: Any, fraction: Any, arithmetic: Arithmetic) -> Any:
    """Half a cosine: slow, fast, slow. Exact at the end; operation by operation what torch's ``OneCycleLR`` computes.

    >>> from cyclewise.policies.arithmetic import SCALAR
    >>> [cosine(1.0, 0.0, fraction, SCALAR) for fraction in (0.0, 1.0)]
    [1.0, 0.0]
    """
    return end + (start - end) / 2.0 * (arithmetic.cos(math.pi * fraction) + 1.0)


def linear(start: Any, end: Any, fraction: Any, arithmetic: Arithmetic) -> Any:
    """A straight line, reckoned from the nearer end as ``torch.lerp`` does: exact at both ends and never outside.

    >>> from cyclewise.policies.arithmetic import SCALAR
    >>> [linear(0.1, 0.3, fraction, SCALAR) for fraction in (0.0, 0.5, 1.0)]
    [0.1, 0.2, 0.3]
    """
    span = end - start
    return arithmetic.where(fraction <= 0.5, start + span * fraction, end - span * (1.0 - fraction))


SHAPES = {"cosine": cosine, "linear": linear}
