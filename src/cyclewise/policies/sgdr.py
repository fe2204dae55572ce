"""SGDR: cosine annealing with warm restarts."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy


@register_policy
@dataclass(frozen=True, kw_only=True)
class SGDR(FormulaPolicy):
    """Cycles of half a cosine from the maximum towards `min_lr`; each restart goes on from the same weights.

    Cycle k has ``round(T_0 * T_mult**k)`` steps and the peak ``max_lr * peak_decay**k``; at its t-th step
    ``lr = min_lr + (peak - min_lr) / 2 * (1 + cos(pi * t / length))``. Cycles are half-open, as published: a cycle's
    last step lies just above `min_lr`, the next one begins at its peak. Equal to torch's
    ``CosineAnnealingWarmRestarts``, except that restarts are found in whole numbers and are never off by one.

    Args:
        max_lr: peak of the first cycle, above 0.
        min_lr: what each cycle anneals towards, between 0 and the last peak.
        T_0: steps of the first cycle.
        T_mult: growth of the cycles, at least 1; fractions are allowed, lengths are rounded to whole steps.
        num_cycles: number of cycles.
        peak_decay: what the peak is multiplied by at each restart, in (0, 1].

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Loshchilov and Hutter, arXiv:1608.03983, section 3, equation 5.

    Example:
        >>> policy = SGDR(max_lr=0.1, T_0=400, T_mult=2, num_cycles=3)
        >>> policy.cycle_ends, policy.lr([0, 200, 400, 1200])
        ([400, 1200, 2800], array([0.1 , 0.05, 0.1 , 0.1 ]))
    """

    max_lr: float
    min_lr: float = 0.0
    T_0: int
    T_mult: float = 1
    num_cycles: int
    peak_decay: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        object.__setattr__(self, "T_0", checks.whole("T_0", self.T_0, "it counts the steps of the first cycle"))
        growth = _validation.real("T_mult", self.T_mult, way_out="2 doubles every cycle", error=PolicyError)
        if growth < 1:
            raise PolicyError(f"T_mult must be at least 1, got {self.T_mult!r}; 2 doubles every cycle")
        object.__setattr__(self, "T_mult", int(growth) if growth.is_integer() else growth)
        cycles = checks.whole("num_cycles", self.num_cycles, "it counts the restarts, plus one")
        if cycles > checks.MOST_CYCLES:
            raise PolicyError(
                f"num_cycles must be at most {checks.MOST_CYCLES}, got {self.num_cycles!r}; "
                "the end of each is kept: ask for fewer, longer cycles"
            )
        object.__setattr__(self, "num_cycles", cycles)
        _ = self._lengths  # which refuses cycles that are too long
        decay = _validation.fraction("peak_decay", self.peak_decay, error=PolicyError)
        if decay == 0:
            raise PolicyError(f"peak_decay must be above 0, got {self.peak_decay!r}; 1 keeps the peak")
        object.__setattr__(self, "peak_decay", decay)
        object.__setattr__(self, "min_lr", checks.rate("min_lr", self.min_lr))
        last_peak = self.max_lr * decay ** (cycles - 1)
        if self.min_lr > last_peak:
            raise PolicyError(
                f"min_lr must be at most the last cycle's peak {last_peak:.4g}, got {self.min_lr!r}; "
                "lower it, or raise peak_decay"
            )

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """Steps of all cycles together."""
        return self._ends[-1]

    @property
    def cycle_ends(self) -> list[int]:
        """The step after each cycle."""
        return list(self._ends)

    @property
    def peak_step(self) -> int:
        """The first step, which has the highest rate."""
        return 0

    @cached_property
    def _lengths(self) -> list[int]:
        lengths, left = [], checks.MOST_STEPS
        for k in range(self.num_cycles):
            lengths.append(round(self.T_0 * self.T_mult**k))
            left -= lengths[-1]
            # At once, since the next power may be larger than any float or any memory.
            if left < 0:
                raise PolicyError(
                    f"num_cycles must leave at most 2**53 steps in all, got {self.num_cycles!r} "
                    f"with T_0={self.T_0} and T_mult={float(self.T_mult):.6g}; ask for fewer cycles"
                )
        return lengths

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self._lengths))

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *self._ends[:-1]]

    @cached_property
    def _peaks(self) -> list[float]:
        return [self.max_lr * self.peak_decay**k for k in range(self.num_cycles)]

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the rate on the cosine of the step's cycle."""
        cycle = arithmetic.count_at_most(self._ends, step)
        since_restart = step - arithmetic.pick(self._starts, cycle)
        fraction = since_restart / arithmetic.pick(self._lengths, cycle)
        return Hyperparameters(anneal.cosine(arithmetic.pick(self._peaks, cycle), self.min_lr, fraction, arithmetic))
