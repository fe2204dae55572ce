"""The loss as a function of the parameters, measured on the user's own model: curvature, its limits, its spectrum."""

from cyclewise.landscape.paths import Barrier, barrier

__all__ = ["Barrier", "barrier"]
