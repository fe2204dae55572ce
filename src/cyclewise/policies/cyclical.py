"""Cyclical learning rates: straight up and down, again and again."""

from dataclasses import dataclass
from typing import Any

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import checks
from cyclewise.policies.arithmetic import Arithmetic
from cyclewise.policies.base import FormulaPolicy, Hyperparameters, register_policy

MODES = ("triangular", "triangular2", "exp_range")


@register_policy
@dataclass(frozen=True, kw_only=True)
class Cyclical(FormulaPolicy):
    """The rate climbs from `base_lr` to `max_lr` in `step_size_up` steps, falls in `step_size_down`, and starts again.

    With ``cycle = step // (step_size_up + step_size_down)`` and `height` rising from 0 to 1 and back in each cycle:
    ``lr(step) = base_lr + (max_lr - base_lr) * height * scale``, where `scale` is 1 ("triangular"), ``2**-cycle``
    ("triangular2") or ``gamma**step`` ("exp_range"). The momentum, if it moves, mirrors the rate. Cycles are half-open,
    as published: a cycle's last step lies just above `base_lr`, the next one begins on it. Equal to torch's
    ``CyclicLR``.

    Args:
        base_lr: rate at the beginning of each cycle, at least 0.
        max_lr: rate at the peak of the first cycle, at least `base_lr`.
        step_size_up: steps from `base_lr` to `max_lr`; 2 to 10 epochs' worth is Smith's advice.
        step_size_down: steps back down; None: as many as up.
        mode: "triangular", "triangular2" (the amplitude halves every cycle) or "exp_range".
        gamma: factor per step of "exp_range", in (0, 1].
        base_momentum: momentum (Adam's beta1) at the peaks; None, with `max_momentum`, leaves the momentum alone.
        max_momentum: momentum at the beginning of each cycle.
        total_steps: length in steps; after it the last value is held.

    Raises:
        PolicyError: an argument has an impossible value.

    Source: Smith, arXiv:1506.01186, section 3.1.

    Example:
        >>> policy = Cyclical(base_lr=0.0, max_lr=1.0, step_size_up=2, mode="triangular2", total_steps=8)
        >>> policy.lr(range(8)), policy.cycle_ends
        (array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25]), [4, 8])
    """

    base_lr: float
    max_lr: float
    step_size_up: int
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0
    base_momentum: float | None = None
    max_momentum: float | None = None
    total_steps: int

    def __post_init__(self) -> None:
        base_lr, max_lr = checks.rising("base_lr", self.base_lr, "max_lr", self.max_lr)
        way_out = "it counts optimizer updates: 2 to 10 epochs' worth is usual"
        object.__setattr__(self, "base_lr", base_lr)
        object.__setattr__(self, "max_lr", max_lr)
        object.__setattr__(self, "step_size_up", checks.whole("step_size_up", self.step_size_up, way_out))
        if self.step_size_down is not None:
            object.__setattr__(self, "step_size_down", checks.whole("step_size_down", self.step_size_down, way_out))
        _validation.one_of("mode", self.mode, MODES, error=PolicyError)
        gamma = _validation.positive("gamma", self.gamma, way_out="0.99994 is Smith's", error=PolicyError)
        if gamma > 1:
            raise PolicyError(f"gamma must be at most 1, got {self.gamma!r}; a larger one makes the rate explode")
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "total_steps", checks.total_steps(self.total_steps))
        momenta = checks.momenta(self.base_momentum, self.max_momentum)
        if momenta is not None:
            object.__setattr__(self, "base_momentum", momenta[0])
            object.__setattr__(self, "max_momentum", momenta[1])

    @property
    def cycle_ends(self) -> list[int]:
        """The step after each cycle; the last cycle may be cut short.

        Raises:
            PolicyError: there are more than ten million of them.
        """
        if self.total_steps > checks.MOST_LISTED_ENDS * self._cycle_steps:
            raise PolicyError(
                f"total_steps must leave at most {checks.MOST_LISTED_ENDS} cycles to list their ends, "
                f"got {-(-self.total_steps // self._cycle_steps)}; raise step_size_up"
            )
        return [*range(self._cycle_steps, self.total_steps, self._cycle_steps), self.total_steps]

    @property
    def _down(self) -> int:
        return self.step_size_up if self.step_size_down is None else self.step_size_down

    @property
    def _cycle_steps(self) -> int:
        return self.step_size_up + self._down

    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return rate and momentum on the triangle."""
        up, cycle_steps = self.step_size_up, self._cycle_steps
        position = step % cycle_steps
        height = arithmetic.where(position <= up, position / up, (cycle_steps - position) / self._down)
        if self.mode == "triangular2":
            height = height * arithmetic.power(0.5, step // cycle_steps)
        elif self.mode == "exp_range":
            height = height * arithmetic.power(self.gamma, step)
        lr = self.base_lr + (self.max_lr - self.base_lr) * height
        if self.base_momentum is None or self.max_momentum is None:
            return Hyperparameters(lr)
        return Hyperparameters(lr, self.max_momentum - (self.max_momentum - self.base_momentum) * height)
