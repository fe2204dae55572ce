"""The loss as a function of the parameters, measured on the user's own model: curvature, its limits, its spectrum."""

from cyclewise.landscape.paths import Barrier, barrier
from cyclewise.landscape.watch import LoopWatch
from cyclewise.landscape.watched import Watched

__all__ = ["Barrier", "LoopWatch", "Watched", "barrier"]
