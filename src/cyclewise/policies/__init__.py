"""Policies: frozen settings, pure functions of the step. Standard library and NumPy only."""

from cyclewise.policies.base import Hyperparameters, Policy, policy_from_dict, register_policy, registered_policies
from cyclewise.policies.elementary import Constant, Cosine, Linear
from cyclewise.policies.extended import Extended
from cyclewise.policies.join import Join
from cyclewise.policies.one_cycle import OneCycle

__all__ = [
    "Constant",
    "Cosine",
    "Extended",
    "Hyperparameters",
    "Join",
    "Linear",
    "OneCycle",
    "Policy",
    "policy_from_dict",
    "register_policy",
    "registered_policies",
]
