"""Change when stuck: hold a rate while it improves the loss, cycle when it doesn't.

Such a schedule needs the loss, so it is no policy (no function of the step alone) but a *rule*: frozen settings and a
pure function from a state and a loss to the next state. Its state is plain numbers, to be saved and resumed anywhere.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from cyclewise import _validation
from cyclewise.errors import PolicyError
from cyclewise.policies import anneal, checks
from cyclewise.policies.arithmetic import SCALAR


class PlateauState(NamedTuple):
    """Where a :class:`CycleOnPlateau` stands.

    Attributes:
        smoothed: moving average of the losses so far; None before the first.
        best: lowest average since the last cycle; None before the first loss.
        stale_steps: steps since the average last improved.
        cycle_step: steps made in the running cycle; None between cycles.
        num_cycles: cycles completed.
    """

    smoothed: float | None = None
    best: float | None = None
    stale_steps: int = 0
    cycle_step: int | None = None
    num_cycles: int = 0


def state_from(values: Any) -> PlateauState:
    """Return the state that was saved as a list.

    Raises:
        PolicyError: these are not the numbers of a state.
    """
    is_list = isinstance(values, (list, tuple)) and len(values) == len(PlateauState._fields)
    if is_list:
        state = PlateauState(*values)
        losses = [loss for loss in (state.smoothed, state.best) if loss is not None]
        counts = [state.stale_steps, state.num_cycles, *([] if state.cycle_step is None else [state.cycle_step])]
        if all(type(loss) in (float, int) for loss in losses) and all(type(count) is int for count in counts):
            return state
    raise PolicyError(
        f"state_dict must hold the {len(PlateauState._fields)} numbers of a rule's state, got {values!r}; "
        "the state is damaged"
    )


@dataclass(frozen=True, kw_only=True)
class CycleOnPlateau:
    """Hold `base_lr` until the smoothed loss stops improving, then raise the rate to `max_lr` and back, and hold again.

    The loss is smoothed by ``smoothed <- smoothing * smoothed + (1 - smoothing) * loss``. It improves when it falls
    below ``best - threshold * |best|``; after `patience` steps without that, a cycle of `cycle_steps` steps begins: up
    in a straight line for half of them, then down to ``base_lr * decay``, which becomes the rate to hold.

    Args:
        base_lr: the rate to hold, above 0.
        max_lr: the peak of the cycles, above `base_lr`.
        cycle_steps: length of a cycle in steps, at least 2.
        patience: steps without improvement before a cycle begins.
        threshold: the relative improvement that counts, a fraction.
        smoothing: weight of the past in the average, a fraction below 1; 0 takes the losses as they are.
        decay: what the held rate is multiplied by after each cycle, in (0, 1].

    Raises:
        PolicyError: an argument has an impossible value.

    Source: the shape of the cycle is Smith's triangular one, arXiv:1506.01186, section 3.1; to start it when the loss
    stops improving is the advice that cyclical rates are often explained with.

    Example:
        >>> rule = CycleOnPlateau(base_lr=0.1, max_lr=0.5, cycle_steps=4, patience=2, smoothing=0.0)
        >>> state, rates = rule.initial_state(), []
        >>> for loss in [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]:
        ...     state, lr = rule.next(state, loss)
        ...     rates.append(round(lr, 3))
        >>> rates, state.num_cycles
        ([0.1, 0.1, 0.1, 0.3, 0.5, 0.3, 0.1, 0.1], 1)
    """

    base_lr: float
    max_lr: float
    cycle_steps: int
    patience: int
    threshold: float = 0.01
    smoothing: float = 0.95
    decay: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_lr", checks.peak("base_lr", self.base_lr))
        object.__setattr__(self, "max_lr", checks.peak("max_lr", self.max_lr))
        if self.max_lr <= self.base_lr:
            raise PolicyError(f"max_lr must be above base_lr={self.base_lr!r}, got {self.max_lr!r}; swap them")
        steps = checks.whole("cycle_steps", self.cycle_steps, "a cycle goes up and down", minimum=2)
        object.__setattr__(self, "cycle_steps", steps)
        object.__setattr__(
            self, "patience", checks.whole("patience", self.patience, "it counts steps; an epoch's worth is usual")
        )
        object.__setattr__(self, "threshold", _validation.fraction("threshold", self.threshold, error=PolicyError))
        smoothing = _validation.fraction("smoothing", self.smoothing, error=PolicyError)
        if smoothing == 1:
            raise PolicyError(f"smoothing must be below 1, got {self.smoothing!r}; 0.95 averages some 20 steps")
        object.__setattr__(self, "smoothing", smoothing)
        object.__setattr__(self, "decay", _validation.fraction("decay", self.decay, error=PolicyError))
        if self.decay == 0:
            raise PolicyError(f"decay must be above 0, got {self.decay!r}; 1 holds the same rate after each cycle")

    def initial_state(self) -> PlateauState:
        """Return the state before the first loss."""
        return PlateauState()

    def lr(self, state: PlateauState) -> float:
        """Return the learning rate in a state."""
        held = self._held(state.num_cycles)
        if state.cycle_step is None:
            return held
        share = 2.0 * state.cycle_step / self.cycle_steps
        if share <= 1.0:
            return float(anneal.linear(held, self.max_lr, share, SCALAR))
        return float(anneal.linear(self.max_lr, self._held(state.num_cycles + 1), share - 1.0, SCALAR))

    def next(self, state: PlateauState, loss: float) -> tuple[PlateauState, float]:
        """Return the state after a step with this loss, and the rate of the next step.

        A loss that is not finite counts as no improvement and leaves the average alone.
        """
        after = self._after(state, float(loss))
        return after, self.lr(after)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"rule": type(self).__name__, "version": 1, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def _held(self, num_cycles: int) -> float:
        return self.base_lr * self.decay**num_cycles

    def _after(self, state: PlateauState, loss: float) -> PlateauState:
        smoothed = state.smoothed
        if math.isfinite(loss):
            smoothed = loss if smoothed is None else self.smoothing * smoothed + (1.0 - self.smoothing) * loss
        if state.cycle_step is not None:
            if state.cycle_step + 1 < self.cycle_steps:
                return state._replace(smoothed=smoothed, cycle_step=state.cycle_step + 1)
            # Patience starts anew: what was best before the cycle is not held against what comes after it.
            return PlateauState(smoothed=smoothed, best=smoothed, num_cycles=state.num_cycles + 1)
        has_improved = smoothed is not None and (
            state.best is None or smoothed < state.best - self.threshold * abs(state.best)
        )
        if has_improved:
            return state._replace(smoothed=smoothed, best=smoothed, stale_steps=0)
        stale_steps = state.stale_steps + 1
        if stale_steps < self.patience:
            return state._replace(smoothed=smoothed, stale_steps=stale_steps)
        return state._replace(smoothed=smoothed, stale_steps=0, cycle_step=1)
