"""How a sweep ended, and why there is no rate to give."""

from enum import Enum


class StopReason(Enum):
    """Why the sweep ended."""

    COMPLETED = "completed"
    DIVERGED = "diverged"
    NONFINITE = "loss not finite"
    NOT_STARTED = "not started"


class Refusal(Enum):
    """Why there is no learning rate to give, and what to do about it.

    >>> print(Refusal.NO_IMPROVEMENT.remedy)
    check that the targets belong to the inputs and that the optimizer owns the model's parameters; if they do, give the
    sweep more steps (num_steps=300) or larger batches, and higher rates where end_lr bounds them
    """

    FROZEN = "no parameter requires a gradient"
    NONFINITE_START = "the loss or its gradient is not finite before any training"
    ZERO_GRADIENT = "all gradients are zero"
    NO_IMPROVEMENT = "no rate lowered the loss by more than its noise"
    UNRELATED = "nothing was learned that links the targets to the inputs"
    TOO_FEW_STEPS = "the sweep ended after too few steps to read a curve"
    STILL_FALLING = "the loss was still falling at the highest rate"
    STARTS_TOO_HIGH = "the lowest rate that was tried is too high already"
    NOISY = "the loss of one and the same batch varies more than any rate lowered it"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Refusal.FROZEN: "call requires_grad_(True) on what should be trained, or give the optimizer those parameters",
    Refusal.NONFINITE_START: (
        "look for NaN or infinity in the inputs, the targets, the initial weights and the gradients (a root or a "
        "logarithm of 0), and for batches of which all targets are left out: their mean loss is none"
    ),
    Refusal.ZERO_GRADIENT: (
        "look for dead units, a detached output or a constant loss: no rate can move parameters without a gradient"
    ),
    Refusal.NO_IMPROVEMENT: (
        "check that the targets belong to the inputs and that the optimizer owns the model's parameters; "
        "if they do, give the sweep more steps (num_steps=300) or larger batches, and higher rates where end_lr bounds "
        "them"
    ),
    Refusal.UNRELATED: (
        "check that the targets belong to the inputs (a shuffle of one but not of the other?); "
        "if they do, the first steps don't show it (a plateau at the start?): raise num_steps to 300 or more, "
        "or train a little at a low rate and test from there"
    ),
    Refusal.TOO_FEW_STEPS: "start lower (start_lr=1e-9), or raise num_steps to 100",
    Refusal.STILL_FALLING: "sweep further up: raise end_lr by a factor of 100",
    Refusal.STARTS_TOO_HIGH: "start lower: divide start_lr by 1000, or leave it out to have it found",
    Refusal.NOISY: (
        "average each step's loss over more samples or draws: larger batches, accumulation_steps=16, "
        "or a loss that draws more often"
    ),
}


def explain(refusal: Refusal) -> str:
    """Return the reason and the remedy as what an error says."""
    return f"there is no learning rate to give: {refusal.value}; {refusal.remedy}"
