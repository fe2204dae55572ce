"""Policies by name, all of one length and with rates up to about 1, which tuning multiplies by the rate it finds."""

from collections.abc import Callable, Sequence

from cyclewise.errors import ArgumentError
from cyclewise.policies import SGDR, Constant, Cosine, Cyclical, Join, Linear, MultiStep, OneCycle, Policy

# Cycles within a run, for the policies that have several.
_NUM_CYCLES = 3


def _one_cycle(total_steps: int) -> Policy:
    return OneCycle(max_lr=1.0, total_steps=total_steps, pct_start=0.25)


def _one_cycle_momentum(total_steps: int) -> Policy:
    return OneCycle(max_lr=1.0, total_steps=total_steps, pct_start=0.25, base_momentum=0.85, max_momentum=0.95)


def _step_decay(total_steps: int) -> Policy:
    milestones = sorted({max(1, total_steps // 2), max(1, 3 * total_steps // 4)})
    return MultiStep(max_lr=1.0, milestones=tuple(milestones), total_steps=total_steps)


def _sgdr(total_steps: int) -> Policy:
    # Cycles of equal length, the rest of the division in the last one.
    length = max(1, total_steps // _NUM_CYCLES)
    if total_steps < 2 * length or total_steps % length == 0:
        return SGDR(max_lr=1.0, T_0=length, num_cycles=max(1, total_steps // length))
    whole = total_steps // length - 1
    last = SGDR(max_lr=1.0, T_0=total_steps - whole * length, num_cycles=1)
    return Join([SGDR(max_lr=1.0, T_0=length, num_cycles=whole), last])


def _warm_cosine(total_steps: int) -> Policy:
    rise = total_steps // 20
    if rise < 1:
        return Cosine(max_lr=1.0, total_steps=total_steps)
    falling = Cosine(max_lr=1.0, total_steps=total_steps - rise)
    return Join([Linear(start_lr=1.0 / (rise + 1), end_lr=rise / (rise + 1), total_steps=rise), falling])


def _cyclical(mode: str) -> Callable[[int], Policy]:
    def make(total_steps: int) -> Policy:
        half = max(1, round(total_steps / _NUM_CYCLES / 2))
        gamma = 0.1 ** (1.0 / total_steps) if mode == "exp_range" else 1.0
        return Cyclical(base_lr=0.1, max_lr=1.0, step_size_up=half, mode=mode, gamma=gamma, total_steps=total_steps)

    return make


NAMED: dict[str, Callable[[int], Policy]] = {
    "one-cycle": _one_cycle,
    "one-cycle-momentum": _one_cycle_momentum,
    "constant": lambda total_steps: Constant(lr=1.0, total_steps=total_steps),
    "step-decay": _step_decay,
    "cosine": _warm_cosine,
    "linear": lambda total_steps: Linear(start_lr=1.0, end_lr=0.0, total_steps=total_steps),
    "sgdr": _sgdr,
    "triangular": _cyclical("triangular"),
    "triangular2": _cyclical("triangular2"),
    "exp-range": _cyclical("exp_range"),
}


def named_policies(names: Sequence[str], total_steps: int) -> dict[str, Policy]:
    """Return policies of `total_steps` steps whose rates are fractions of a highest one.

    Args:
        names: keys of :data:`NAMED`.
        total_steps: length of each.

    Raises:
        ArgumentError: there is no such policy.

    >>> {name: policy.total_steps for name, policy in named_policies(["sgdr", "cosine"], 100).items()}
    {'sgdr': 100, 'cosine': 100}
    """
    for name in names:
        if name not in NAMED:
            raise ArgumentError(
                f"policies must be names among {', '.join(NAMED)}, got {name!r}; separate them by commas"
            )
    return {name: NAMED[name](total_steps) for name in names}
