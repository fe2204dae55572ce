"""From a torch scheduler, mid-run, to the equal policy."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, LRScheduler, OneCycleLR

from cyclewise._validation import describe
from cyclewise.errors import ArgumentTypeError, PolicyError
from cyclewise.policies import SGDR, Cyclical, OneCycle, Policy, ThreePhaseOneCycle
from cyclewise.policies.checks import MOST_CYCLES
from cyclewise.scheduler import PolicyLR


def migrate(scheduler: LRScheduler, *, total_steps: int | None = None) -> PolicyLR:
    """Return a :class:`PolicyLR` that goes on where a torch scheduler stands, by the equal policy.

    Use it instead of the old scheduler from then on: the rates (and momenta) of the steps to come are those that torch
    would have given, as far as torch's are well defined. A ``OneCycleLR`` whose peak lies between two steps gets it on
    the nearest one, with a warning. The bookkeeping that torch keeps in ``param_groups`` is left.

    Args:
        scheduler: a ``OneCycleLR``, ``CyclicLR`` or ``CosineAnnealingWarmRestarts``.
        total_steps: length in steps of the whole run, counted from the old scheduler's step 0, for the two that have no
            end of their own; warm restarts end with the cycle that it falls into.

    Raises:
        ArgumentTypeError: the scheduler is of another kind.
        PolicyError: `total_steps` is missing, or the scheduler uses what no policy has: a ``scale_fn``, step sizes that
            are not whole, an epoch that is a fraction.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> old = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=100, cycle_momentum=False)
        >>> for _ in range(10):
        ...     optimizer.step()
        ...     old.step()
        >>> new = migrate(old)
        >>> new.last_epoch, new.get_last_lr() == old.get_last_lr()
        (10, True)
    """
    policies: Sequence[Policy]
    if isinstance(scheduler, OneCycleLR):
        policies = _one_cycles(scheduler)
    elif isinstance(scheduler, CyclicLR):
        policies = _cyclicals(scheduler, _needed(total_steps))
    elif isinstance(scheduler, CosineAnnealingWarmRestarts):
        policies = _sgdrs(scheduler, _needed(total_steps))
    else:
        raise ArgumentTypeError(
            "scheduler must be a OneCycleLR, CyclicLR or CosineAnnealingWarmRestarts, "
            f"got {describe(scheduler)}; write the policy by hand and set its step: "
            'scheduler.load_state_dict({**scheduler.state_dict(), "step": k})'
        )
    new = PolicyLR(scheduler.optimizer, policies[0] if len(set(policies)) == 1 else policies)
    new.load_state_dict({**new.state_dict(), "step": int(scheduler.last_epoch)})
    return new


def _one_cycles(old: Any) -> Sequence[Policy]:
    first = old._schedule_phases[0]
    # torch keeps the fraction only as the step of the peak.
    peak = float(first["end_step"])
    pct_start = (peak + 1.0) / old.total_steps
    kind = ThreePhaseOneCycle if len(old._schedule_phases) == 3 else OneCycle
    policies: list[OneCycle] = [
        kind(
            max_lr=group["max_lr"],
            total_steps=old.total_steps,
            pct_start=pct_start,
            div_factor=group["max_lr"] / group["initial_lr"],
            final_div_factor=group["initial_lr"] / group["min_lr"],
            base_momentum=group["base_momentum"] if old.cycle_momentum else None,
            max_momentum=group["max_momentum"] if old.cycle_momentum else None,
            anneal={"cos": "cosine"}.get(old._anneal_func_type, old._anneal_func_type),
        )
        for group in old.optimizer.param_groups
    ]
    if abs(peak - round(peak)) > 1e-6:
        warnings.warn(
            f"the OneCycleLR has its peak between two steps, at {peak:.6g}; "
            f"the policy has it on step {policies[0].peak_step}, so that the rates differ a little",
            UserWarning,
            stacklevel=3,
        )
    return policies


def _cyclicals(old: Any, total_steps: int) -> list[Policy]:
    if old._scale_fn_custom is not None:
        raise PolicyError(
            "scheduler must not have a scale_fn, got one, which no policy can be made of; subclass cyclewise.Policy"
        )
    up, down = old.total_size * old.step_ratio, old.total_size * (1.0 - old.step_ratio)
    up, down = round(up, 9), round(down, 9)
    if not (up.is_integer() and down.is_integer()):
        raise PolicyError(f"scheduler must have whole step sizes, got {up} up and {down} down; round them")
    groups = old.optimizer.param_groups
    cycles_momentum = bool(old.cycle_momentum)
    return [
        Cyclical(
            base_lr=base_lr,
            max_lr=max_lr,
            step_size_up=up,
            step_size_down=down,
            mode=old.mode,
            gamma=old.gamma,
            base_momentum=group["base_momentum"] if cycles_momentum else None,
            max_momentum=group["max_momentum"] if cycles_momentum else None,
            total_steps=total_steps,
        )
        for base_lr, max_lr, group in zip(old.base_lrs, old.max_lrs, groups, strict=True)
    ]


def _sgdrs(old: Any, total_steps: int) -> list[Policy]:
    if abs(old.T_cur - round(old.T_cur)) > 1e-6:
        raise PolicyError(
            f"scheduler must stand at a whole epoch, got {old.T_cur:.6g} epochs into a cycle of {old.T_i}; "
            "policies count steps: write SGDR with T_0 in updates by hand and set its step: "
            'scheduler.load_state_dict({**scheduler.state_dict(), "step": k})'
        )
    num_cycles, end = 0, 0
    while end < total_steps and num_cycles <= MOST_CYCLES:  # SGDR refuses more
        end += old.T_0 * old.T_mult**num_cycles
        num_cycles += 1
    return [
        SGDR(max_lr=base_lr, min_lr=old.eta_min, T_0=old.T_0, T_mult=old.T_mult, num_cycles=num_cycles)
        for base_lr in old.base_lrs
    ]


def _needed(total_steps: int | None) -> int:
    if total_steps is None:
        raise PolicyError(
            "total_steps must be given for a scheduler without an end, got None; pass epochs * len(train_loader)"
        )
    return total_steps
