"""The policies with a warm-up or a plateau: inverse square root, warmup-stable-decay, flat-cosine."""

from dataclasses import dataclass
from typing import Any

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class InverseSqrt(FormulaPolicy):
    """A straight warm-up from 0 to `max_lr`, then a fall with the square root of the step.

    ``lr(step) = max_lr * step / warmup_steps`` up to `warmup_steps`, then ``max_lr * sqrt(warmup_steps / step)``.

    Args:
        max_lr: rate at step `warmup_steps`, above 0.
        warmup_steps: steps of the warm-up, at least 1.
        total_steps: length in steps.

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Vaswani et al., arXiv:1706.03762, section 5.3, with the peak as the argument.

    Example:
        >>> InverseSqrt(max_lr=1.0, warmup_steps=4, total_steps=65).lr([0, 2, 4, 16, 64])
        array([0.  , 0.5 , 1.  , 0.5 , 0.25])
    """

    max_lr: float
    warmup_steps: int
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        warmup = checks.whole("warmup_steps", self.warmup_steps, "a few hundred is usual; for none use Polynomial")
        object.__setattr__(self, "warmup_steps", warmup)
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate of the warm-up or of the fall."""
        warmup = self.warmup_steps
        rises = step <= warmup
        later = arithmetic.where(rises, warmup, step)
        fall = arithmetic.sqrt(warmup / later)
        return Hyperparameters(self.max_lr * arithmetic.where(rises, step / warmup, fall))


@register_policy
@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(FormulaPolicy):
    """Up in a straight line, hold, then down over the last steps; the length may be decided late, with `extend`.

    The rate is 0 at step 0, `max_lr` from step `warmup_steps` to step ``total_steps - 1 - decay_steps``, and `min_lr`
    at the last step.

    Args:
        max_lr: the rate to hold, above 0.
        min_lr: the last rate, between 0 and `max_lr`.
        warmup_steps: steps of the warm-up; 0: none.
        decay_steps: steps of the decay; 0: none.
        total_steps: length in steps, above ``warmup_steps + decay_steps``.
        anneal: shape of the decay, "linear" or "cosine".

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Hu et al., arXiv:2404.06395, section 4.

    Example:
        >>> policy = WarmupStableDecay(max_lr=1.0, warmup_steps=2, decay_steps=4, total_steps=10)
        >>> policy.lr(range(10))
        array([0.  , 0.5 , 1.  , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    max_lr: float
    min_lr: float = 0.0
    warmup_steps: int
    decay_steps: int
    total_steps: int
    anneal: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "min_lr", checks.floor("min_lr", self.min_lr, self.max_lr))
        total = checks.total_steps(self.total_steps)
        object.__setattr__(self, "total_steps", total)
        for name in ("warmup_steps", "decay_steps"):
            object.__setattr__(self, name, checks.whole(name, getattr(self, name), "0 means none", minimum=0))
        if self.warmup_steps + self.decay_steps >= total:
            raise PolicyError(
                f"total_steps must be above warmup_steps + decay_steps = {self.warmup_steps + self.decay_steps}, "
                f"got {total}; shorten the warm-up or the decay"
            )
        _validation.one_of("anneal", self.anneal, tuple(anneal.SHAPES), error=PolicyError)

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate of the phase that the step lies in."""
        where, warmup, first_decay = arithmetic.where, self.warmup_steps, self.total_steps - 1 - self.decay_steps
        rises = where(step < warmup, step / max(1, warmup), 1.0)
        decays = where(step > first_decay, (step - first_decay) / max(1, self.decay_steps), 0.0)
        falling = anneal.SHAPES[self.anneal](self.max_lr, self.min_lr, decays, arithmetic)
        return Hyperparameters(where(step <= first_decay, self.max_lr * rises, falling))


@register_policy
@dataclass(frozen=True, kw_only=True)
class FlatCosine(FormulaPolicy):
    """Hold `max_lr` for a fraction of the steps, then half a cosine down to `min_lr`, which is reached.

    Args:
        max_lr: the rate to hold, above 0.
        min_lr: the last rate, between 0 and `max_lr`.
        pct_start: fraction of the steps at `max_lr`, 0 to 1.
        total_steps: length in steps.

    Raises:
        PolicyError: an argument has an impossible value.

    Source: fastai's ``fit_flat_cos``.

    Example:
        >>> FlatCosine(max_lr=1.0, pct_start=0.6, total_steps=5).lr(range(5))
        array([1. , 1. , 1. , 0.5, 0. ])
    """

    max_lr: float
    min_lr: float = 0.0
    pct_start: float = 0.75
    total_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "min_lr", checks.floor("min_lr", self.min_lr, self.max_lr))
        object.__setattr__(self, "pct_start", _validation.fraction("pct_start", self.pct_start, error=PolicyError))
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the held rate or the one on the cosine."""
        last_flat = max(0, round(self.pct_start * self.total_steps) - 1)
        fraction = (step - last_flat) / max(1, self.total_steps - 1 - last_flat)
        falling = anneal.cosine(self.max_lr, self.min_lr, fraction, arithmetic)
        return Hyperparameters(arithmetic.where(step <= last_flat, self.max_lr, falling))
