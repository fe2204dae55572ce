"""A better starting point: spaces, objectives, and Nevergrad's optimizers over them.

``door.py`` is the door, ``search.py`` asks and tells, ``running.py`` brings candidates to workers, ``conclusion.py``
holds the best against what it must beat. May use `range_test`, for objectives that find their own rate.
"""

from cyclewise.start.door import search_start
from cyclewise.start.gains import LayerGains
from cyclewise.start.missing import Missing, StopReason
from cyclewise.start.objectives import GradientBalance, HeldOutLoss, TrainingRun, loss_after, short_run
from cyclewise.start.result import StartSearch
from cyclewise.start.schemes import InitScheme
from cyclewise.start.search import Candidate, Evaluation, Search
from cyclewise.start.seeds import Seeds
from cyclewise.start.space import Product, Space
from cyclewise.start.spread import Spread
from cyclewise.start.subspace import FullSpace, Subspace
from cyclewise.start.variables import Choice, Coordinates, Draw

__all__ = [
    "Candidate",
    "Choice",
    "Coordinates",
    "Draw",
    "Evaluation",
    "FullSpace",
    "GradientBalance",
    "HeldOutLoss",
    "InitScheme",
    "LayerGains",
    "Missing",
    "Product",
    "Search",
    "Seeds",
    "Space",
    "Spread",
    "StartSearch",
    "StopReason",
    "Subspace",
    "TrainingRun",
    "loss_after",
    "search_start",
    "short_run",
]
