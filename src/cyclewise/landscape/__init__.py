"""The loss as a function of the parameters, measured on the user's own model: curvature, its limits, its spectrum."""

from cyclewise.landscape.diagnosis import Diagnosis
from cyclewise.landscape.doctor import diagnose
from cyclewise.landscape.findings import Finding
from cyclewise.landscape.paths import Barrier, barrier
from cyclewise.landscape.watch import LoopWatch
from cyclewise.landscape.watched import Watched

__all__ = ["Barrier", "Diagnosis", "Finding", "LoopWatch", "Watched", "barrier", "diagnose"]
