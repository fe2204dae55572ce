"""cyclewise: find the learning rate, drive it through training exactly, and show what happened.

Names are imported when they are first used, so ``import cyclewise`` costs next to nothing beyond torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cyclewise.errors import (
        ArgumentError,
        ArgumentTypeError,
        CheckpointError,
        CyclewiseError,
        DivergedError,
        MissingExtraError,
        PolicyError,
        SuggestionError,
        WorkerError,
    )
    from cyclewise.landscape import Barrier, Diagnosis, Finding, Watched, barrier, diagnose
    from cyclewise.migration import migrate
    from cyclewise.policies import (
        SGDR,
        Constant,
        Cosine,
        CycleOnPlateau,
        Cyclical,
        Exponential,
        FlatCosine,
        Hyperparameters,
        InverseSqrt,
        Join,
        Linear,
        MultiStep,
        OneCycle,
        Policy,
        Polynomial,
        Rescaled,
        ThreePhaseOneCycle,
        Together,
        WarmupStableDecay,
        policy_from_dict,
        register_policy,
    )
    from cyclewise.range_test import Curve, RangeTest, Refusal, StopReason, lr_find
    from cyclewise.report import write_html
    from cyclewise.scheduler import PolicyLR, set_hyperparameters
    from cyclewise.state import preserve
    from cyclewise.training import (
        Callback,
        Checkpoint,
        ConvLearner,
        Data,
        EarlyStopping,
        Ensemble,
        History,
        Learner,
        Snapshots,
        Track,
        Watch,
        WeightAverage,
        accuracy,
        calibration_error,
    )
    from cyclewise.velocity import VelocitySGD

# Where each public name lives; the TYPE_CHECKING block above says the same to type checkers, and a test compares them.
_HOMES = {
    "ArgumentError": "errors",
    "ArgumentTypeError": "errors",
    "Barrier": "landscape",
    "Callback": "training",
    "Checkpoint": "training",
    "CheckpointError": "errors",
    "Constant": "policies",
    "ConvLearner": "training",
    "Cosine": "policies",
    "Curve": "range_test",
    "CycleOnPlateau": "policies",
    "CyclewiseError": "errors",
    "Cyclical": "policies",
    "Data": "training",
    "Diagnosis": "landscape",
    "DivergedError": "errors",
    "EarlyStopping": "training",
    "Ensemble": "training",
    "Exponential": "policies",
    "Finding": "landscape",
    "FlatCosine": "policies",
    "History": "training",
    "Hyperparameters": "policies",
    "InverseSqrt": "policies",
    "Join": "policies",
    "Learner": "training",
    "Linear": "policies",
    "MissingExtraError": "errors",
    "MultiStep": "policies",
    "OneCycle": "policies",
    "Policy": "policies",
    "PolicyError": "errors",
    "PolicyLR": "scheduler",
    "Polynomial": "policies",
    "RangeTest": "range_test",
    "Refusal": "range_test",
    "Rescaled": "policies",
    "SGDR": "policies",
    "Snapshots": "training",
    "StopReason": "range_test",
    "SuggestionError": "errors",
    "WorkerError": "errors",
    "ThreePhaseOneCycle": "policies",
    "Together": "policies",
    "Track": "training",
    "VelocitySGD": "velocity",
    "WarmupStableDecay": "policies",
    "Watch": "training",
    "Watched": "landscape",
    "WeightAverage": "training",
    "accuracy": "training",
    "barrier": "landscape",
    "calibration_error": "training",
    "diagnose": "landscape",
    "lr_find": "range_test",
    "migrate": "migration",
    "policy_from_dict": "policies",
    "preserve": "state",
    "register_policy": "policies",
    "set_hyperparameters": "scheduler",
    "write_html": "report",
}

__all__ = [  # noqa: RUF022 - plainly sorted
    "ArgumentError",
    "ArgumentTypeError",
    "Barrier",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "Constant",
    "ConvLearner",
    "Cosine",
    "Curve",
    "CycleOnPlateau",
    "CyclewiseError",
    "Cyclical",
    "Data",
    "Diagnosis",
    "DivergedError",
    "EarlyStopping",
    "Ensemble",
    "Exponential",
    "Finding",
    "FlatCosine",
    "History",
    "Hyperparameters",
    "InverseSqrt",
    "Join",
    "Learner",
    "Linear",
    "MissingExtraError",
    "MultiStep",
    "OneCycle",
    "Policy",
    "PolicyError",
    "PolicyLR",
    "Polynomial",
    "RangeTest",
    "Refusal",
    "Rescaled",
    "SGDR",
    "Snapshots",
    "StopReason",
    "SuggestionError",
    "ThreePhaseOneCycle",
    "Together",
    "Track",
    "VelocitySGD",
    "WarmupStableDecay",
    "Watch",
    "Watched",
    "WeightAverage",
    "WorkerError",
    "accuracy",
    "barrier",
    "calibration_error",
    "diagnose",
    "lr_find",
    "migrate",
    "policy_from_dict",
    "preserve",
    "register_policy",
    "set_hyperparameters",
    "write_html",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
