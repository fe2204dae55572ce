"""Policies against each other on the user's own task: the same seeds, paired differences, honest verdicts."""

from cyclewise.comparison.comparing import compare
from cyclewise.comparison.comparison import Comparison

__all__ = ["Comparison", "compare"]
