"""The LR range test: raise the rate at every step, record the loss, and say where the rate to use lies."""

from cyclewise.range_test.curve import Curve
from cyclewise.range_test.find import check_options, lr_find, lr_find_by_step, usual_options
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.result import RangeTest

__all__ = [
    "Curve",
    "RangeTest",
    "Refusal",
    "StopReason",
    "check_options",
    "lr_find",
    "lr_find_by_step",
    "usual_options",
]
