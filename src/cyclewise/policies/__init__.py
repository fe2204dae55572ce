"""Policies: frozen settings, pure functions of the step. Standard library and NumPy only."""

from cyclewise.policies.base import Hyperparameters, Policy, policy_from_dict, register_policy, registered_policies
from cyclewise.policies.cyclical import Cyclical
from cyclewise.policies.elementary import Constant, Cosine, Linear
from cyclewise.policies.extended import Extended
from cyclewise.policies.join import Join
from cyclewise.policies.one_cycle import OneCycle
from cyclewise.policies.plateau import CycleOnPlateau, PlateauState
from cyclewise.policies.sgdr import SGDR

__all__ = [
    "SGDR",
    "Constant",
    "Cosine",
    "CycleOnPlateau",
    "Cyclical",
    "Extended",
    "Hyperparameters",
    "Join",
    "Linear",
    "OneCycle",
    "PlateauState",
    "Policy",
    "policy_from_dict",
    "register_policy",
    "registered_policies",
]
