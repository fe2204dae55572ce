"""Why a number of a search could not be had."""

from enum import Enum


class StopReason(Enum):
    """Why a search ended."""

    BUDGET = "the budget is spent"
    INTERRUPTED = "interrupted by Ctrl-C"


class Missing(Enum):
    """Why a number is None."""

    NO_REDRAW = "redraw was not given"
    NO_VALIDATE = "validate was not given"
    INTERRUPTED = "the search was interrupted before it was measured"
    LOST = "the objective raised, or returned no finite number"
