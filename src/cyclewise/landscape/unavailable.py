"""Why a number could not be had: every cause by name, so that programs can tell them apart."""

from enum import Enum


class Unavailable(str, Enum):
    """Why a number is None, or was not measured; as text, one sentence.

    Example:
        >>> print(Unavailable.NO_START)
        no start was given
        >>> Unavailable["NO_START"] is Unavailable.NO_START, Unavailable.NO_START == "no start was given"
        (True, True)
    """

    # What was not given, or not enough of it.
    NO_OPTIMIZER = "no optimizer was given"
    NO_START = "no start was given"
    NO_BATCH = "step() was given no batch"
    BUDGET = "the budget was spent"
    TOO_FEW_STEPS = "the run has had fewer steps than lie between two measurements"

    # What the loss is like.
    LOSS_NOT_FINITE = "the loss is not finite"
    GRADIENT_NOT_FINITE = "the gradient is not finite"
    CURVATURE_NOT_FINITE = "the curvature is not finite"
    REENTRANT = "gradients do not pass torch.utils.checkpoint(use_reentrant=True) here; pass use_reentrant=False"
    NOT_TWICE = "the loss cannot be differentiated twice"
    NO_CURVATURE_MEASURED = "the curvature could not be computed"
    ZERO_GRADIENT = "the gradient is zero"
    NOT_CURVED_UP = "the loss does not curve up along the gradient"
    NO_POSITIVE_EIGENVALUE = "no eigenvalue is positive beyond rounding"
    NO_TWO_DIRECTIONS = "there are no two independent directions"

    # The gradient's noise.
    ONE_SAMPLE = "there is one sample only, and noise shows in the differences between samples"
    UNKNOWN_SIZES = "the samples of a batch cannot be counted, because its tensors differ in their first dimension"
    NOT_SPLITTABLE = "there is one batch only, and the model or the loss does not take a part of it"
    NO_SIGNAL = "the gradient is zero within its own noise, so no batch size can be told to be large enough"
    NO_GRADIENT = "the gradients of all samples are zero"
    TWO_PARTS = "two parts of the data show noise, but not how sure it is"

    # The optimizer and its step.
    UNKNOWN_OPTIMIZER = "no formula for the stability of this optimizer is known here"
    NO_STATE = "the optimizer has made no step yet, so what it divides by is not known; diagnose after some steps"
    MIXED_GROUPS = "the parameter groups differ in momentum, so there is no one limit for all of them"
    NO_CURVATURE = "the loss curves up in no direction, so any rate is stable on its quadratic model"
    OTHER_PARAMETERS = "the optimizer holds none of the model's parameters"
    NEEDS_CLOSURE = "the optimizer needs a closure for its step"
    STEP_NOT_FINITE = "the optimizer's step is not finite"

    # The way of gradients through layers and time.
    FEW_LAYERS = "gradients flow through fewer than three layers"
    FEW_WEIGHTS = "fewer than three layers hold weights of their own"
    NO_OUTPUT_GRADIENT = "no gradient comes out of the last layer, or there is one layer only"
    NO_RECURRENCE = "no module's output depends on its own earlier output"
    PACKED = "a packed sequence enters the recurrence, and its samples end at different steps"
    TOO_SHORT = "the sequences have fewer than four steps"

    def __str__(self) -> str:
        return self.value
