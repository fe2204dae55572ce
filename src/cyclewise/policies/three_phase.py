"""Smith's original one-cycle: up, back down as far, then annihilate."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cyclewise.policies import anneal
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import Hyperparameters, register_policy
from cyclewise.policies.one_cycle import OneCycle


@register_policy
@dataclass(frozen=True, kw_only=True)
class ThreePhaseOneCycle(OneCycle):
    """The rate rises from ``max_lr / div_factor`` to `max_lr`, falls back as long, and then far below where it began.

    The third phase falls to ``max_lr / div_factor / final_div_factor`` on the last step, the momentum staying high.
    Where twice the rise leaves no room for it, the second phase ends there itself. Equal to torch's ``OneCycleLR`` with
    ``three_phase=True`` where ``pct_start * total_steps`` is whole, above 1 and at most half of `total_steps`.

    Args:
        max_lr: as for :class:`OneCycle`.
        total_steps: as for :class:`OneCycle`.
        pct_start: fraction of the steps spent rising; the fall takes as many.
        div_factor: as for :class:`OneCycle`.
        final_div_factor: as for :class:`OneCycle`.
        base_momentum: as for :class:`OneCycle`.
        max_momentum: as for :class:`OneCycle`.
        anneal: "linear", as published, or "cosine".

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Smith, arXiv:1803.09820, section 4.3; Smith and Topin, arXiv:1708.07120, section 3.

    Example:
        >>> policy = ThreePhaseOneCycle(max_lr=1.0, total_steps=11, pct_start=5 / 11, div_factor=10.0)
        >>> policy.lr([0, 4, 8, 10]).round(6)
        array([1.e-01, 1.e+00, 1.e-01, 1.e-05])
    """

    pct_start: float = 0.45
    anneal: str = "linear"

    @cached_property
    def _phase_ends(self) -> tuple[int, int, int]:
        last = self.total_steps - 1
        return self.peak_step, min(2 * self.peak_step, last), last

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return rate and momentum of the phase that the step lies in."""
        where, shape = arithmetic.where, anneal.SHAPES[self.anneal]
        peak, back, last = self._phase_ends
        foot = self.initial_lr if back < last else self.min_lr
        rises, falls = step <= peak, step <= back
        rise = step / peak if peak else step * 0.0 + 1.0
        fall = (step - peak) / max(1, back - peak)
        rest = (step - back) / max(1, last - back)
        fraction = where(rises, rise, where(falls, fall, rest))
        start = where(rises, self.initial_lr, where(falls, self.max_lr, self.initial_lr))
        end = where(rises, self.max_lr, where(falls, foot, self.min_lr))
        lr = shape(start, end, fraction, arithmetic)
        if self.base_momentum is None:
            return Hyperparameters(lr)
        start = where(rises, self.max_momentum, where(falls, self.base_momentum, self.max_momentum))
        end = where(rises, self.base_momentum, self.max_momentum)
        return Hyperparameters(lr, shape(start, end, fraction, arithmetic))
