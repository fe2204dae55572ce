"""Policies: frozen settings, pure functions of the step. Standard library and NumPy only."""

from cyclewise.policies.base import Hyperparameters, Policy, policy_from_dict, register_policy, registered_policies
from cyclewise.policies.cyclical import Cyclical
from cyclewise.policies.decay import Exponential, MultiStep, Polynomial
from cyclewise.policies.elementary import Constant, Cosine, Linear
from cyclewise.policies.extended import Extended
from cyclewise.policies.join import Join
from cyclewise.policies.one_cycle import OneCycle
from cyclewise.policies.plateau import CycleOnPlateau, PlateauState
from cyclewise.policies.rescaled import Rescaled
from cyclewise.policies.sgdr import SGDR
from cyclewise.policies.three_phase import ThreePhaseOneCycle
from cyclewise.policies.together import Together
from cyclewise.policies.warmup import FlatCosine, InverseSqrt, WarmupStableDecay

__all__ = [
    "SGDR",
    "Constant",
    "Cosine",
    "CycleOnPlateau",
    "Cyclical",
    "Exponential",
    "Extended",
    "FlatCosine",
    "Hyperparameters",
    "InverseSqrt",
    "Join",
    "Linear",
    "MultiStep",
    "OneCycle",
    "PlateauState",
    "Policy",
    "Polynomial",
    "Rescaled",
    "ThreePhaseOneCycle",
    "Together",
    "WarmupStableDecay",
    "policy_from_dict",
    "register_policy",
    "registered_policies",
]
