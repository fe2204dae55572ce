"""One cycle over the whole run: the rate up, then far down, the momentum against it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class OneCycle(FormulaPolicy):
    """The rate rises from ``max_lr / div_factor`` to `max_lr` and falls to ``max_lr / div_factor / final_div_factor``.

    The peak lies on the whole step ``max(0, round(pct_start * total_steps) - 1)`` and is reached; so is the end, on
    step ``total_steps - 1``. Where ``pct_start * total_steps`` is whole and above 1, the cosine equals torch's
    two-phase ``OneCycleLR`` bit for bit; it is defined for every fraction and every length. A single step has the rate
    `max_lr`.

    Args:
        max_lr: peak rate, above 0.
        total_steps: length in steps.
        pct_start: fraction of the steps spent rising, 0 to 1.
        div_factor: what `max_lr` is divided by for the rate at step 0.
        final_div_factor: what the rate at step 0 is divided by for the last rate.
        base_momentum: momentum (Adam's beta1) at the peak; None, with `max_momentum`, leaves the momentum alone.
        max_momentum: momentum at both ends. It may be the lower one, to turn the opposition round.
        anneal: "cosine" or "linear".

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Smith, arXiv:1803.09820, section 4.3, and arXiv:1708.07120; two phases and cosine after fastai.

    Example:
        >>> policy = OneCycle(max_lr=0.4, total_steps=100, div_factor=10.0, base_momentum=0.85, max_momentum=0.95)
        >>> policy.lr([0, 29, 99, 500]).round(9)
        array([4.e-02, 4.e-01, 4.e-06, 4.e-06])
        >>> policy.momentum(0), policy.momentum(29), policy.peak_step
        (0.95, 0.85, 29)
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    base_momentum: float | None = None
    max_momentum: float | None = None
    anneal: str = "cosine"

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))
        object.__setattr__(self, "pct_start", _validation.fraction("pct_start", self.pct_start, error=PolicyError))
        object.__setattr__(self, "div_factor", checks.factor("div_factor", self.div_factor))
        object.__setattr__(self, "final_div_factor", checks.factor("final_div_factor", self.final_div_factor))
        # Overflowing to infinity, a quotient fails these too.
        if self.initial_lr > checks.HIGHEST_RATE:
            raise PolicyError(
                f"div_factor must leave a first rate of at most {checks.HIGHEST_RATE}, got {self.div_factor!r} with "
                f"max_lr={self.max_lr!r}; 25 starts at max_lr / 25"
            )
        if self.min_lr > checks.HIGHEST_RATE:
            raise PolicyError(
                f"final_div_factor must leave a last rate of at most {checks.HIGHEST_RATE}, "
                f"got {self.final_div_factor!r} with a first rate of {self.initial_lr!r}; "
                "1e4 ends at a ten-thousandth of it"
            )
        momenta = checks.momenta(self.base_momentum, self.max_momentum)
        if momenta is not None:
            object.__setattr__(self, "base_momentum", momenta[0])
            object.__setattr__(self, "max_momentum", momenta[1])
        _validation.one_of("anneal", self.anneal, tuple(anneal.SHAPES), error=PolicyError)

    @property
    def initial_lr(self) -> float:
        """Rate at step 0."""
        return self.max_lr / self.div_factor

    @property
    def min_lr(self) -> float:
        """Rate at the last step."""
        return self.initial_lr / self.final_div_factor

    @cached_property
    def peak_step(self) -> int:
        """The step with the rate `max_lr`."""
        return max(0, round(self.pct_start * self.total_steps) - 1)

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return rate and momentum of the phase that the step lies in."""
        where, shape, peak = arithmetic.where, anneal.SHAPES[self.anneal], self.peak_step
        rises = step <= peak
        # Both sides are evaluated, also for phases of no length: their divisors only have to be above 0.
        fraction = where(
            rises, step / peak if peak else step * 0.0 + 1.0, (step - peak) / max(1, self.total_steps - 1 - peak)
        )
        start, end = where(rises, self.initial_lr, self.max_lr), where(rises, self.max_lr, self.min_lr)
        lr = shape(start, end, fraction, arithmetic)
        if self.base_momentum is None:
            return Hyperparameters(lr)
        start = where(rises, self.max_momentum, self.base_momentum)
        end = where(rises, self.base_momentum, self.max_momentum)
        return Hyperparameters(lr, shape(start, end, fraction, arithmetic))
