"""Policies against policies on real data."""

from cyclewise.experiments.contest import Contest, Entry
from cyclewise.experiments.digits import digits_contest, digits_learner

__all__ = ["Contest", "Entry", "digits_contest", "digits_learner"]
