"""Policies at work on an optimizer.

Nothing but rate, momentum and weight decay is written, and only what the policy moves; no key is added to a group, and
no group is kept, so the optimizer may be loaded before or after its scheduler.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cyclewise._validation import describe, instance, shown
from cyclewise.errors import ArgumentTypeError, PolicyError
from cyclewise.param_groups import (
    Policies,
    check_extra,
    check_groups,
    fitting,
    read_rates,
    write_extra,
    write_rates,
    write_values,
)
from cyclewise.policies import CycleOnPlateau, PlateauState, Policy
from cyclewise.policies.checks import MOST_STEPS
from cyclewise.policies.identity import same
from cyclewise.policies.plateau import state_from
from cyclewise.policies.steps import as_one_step
from cyclewise.ranks import mean_over_ranks

__all__ = ["PolicyLR", "read_rates", "set_hyperparameters", "write_rates"]

_STATE_VERSION = 1
_STEPS_AT_ONCE = 1024
_OPTIMIZER_WAY_OUT = "make one first, for example torch.optim.SGD(model.parameters(), lr=0.1)"


class PolicyLR(LRScheduler):
    """Drive an optimizer by a policy: call :meth:`step` once after every optimizer update.

    The values of step 0 are written when it is made. Where a gradient scaler skips an update, skip the call. After the
    last step the last values are held. A scheduler that Accelerate has prepared is stepped once per process and update:
    give it ``split_batches=True``, or do not prepare it and call ``step()`` yourself.

    Args:
        optimizer: the optimizer to drive; tensor rates and betas are written in place.
        policy: a policy for all groups, also those added later; a list of one per group; a dict of one per name, for
            groups with a ``"name"``; or a :class:`CycleOnPlateau` rule for all groups, which needs ``step(loss=...)``.
            A group that is added later keeps its own values until the next `step`, as under torch's schedulers; for
            those of the present step, call ``set_hyperparameters(optimizer, policy, step=scheduler.last_epoch)``.
        extra: policies for any other number in the groups, by its key, such as ``{"eps": ...}``; ``"beta2"`` is the
            second of Adam's betas. The value of a policy is its ``lr(step)``.
        on_cycle_end: called as ``on_cycle_end(scheduler, num_cycles)`` by the `step` that completes a cycle, when the
            next step's values are written; of several policies the first one's cycles count.

    Raises:
        ArgumentTypeError: `optimizer` is no torch optimizer, or `policy` no policy.
        PolicyError: the policies do not match the groups, or move what the optimizer does not have.

    Example:
        >>> from cyclewise import Linear
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> scheduler = PolicyLR(optimizer, Linear(start_lr=0.2, end_lr=0.0, total_steps=3))
        >>> rates = []
        >>> for _ in range(3):
        ...     optimizer.step()
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     scheduler.step()
        >>> rates
        [0.2, 0.1, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        policy: Policy | Sequence[Policy] | Mapping[str, Policy] | CycleOnPlateau,
        *,
        extra: Mapping[str, Policy] = MappingProxyType({}),
        on_cycle_end: "Callable[[PolicyLR, int], None] | None" = None,
    ) -> None:
        # The base class would add `initial_lr` to every group and wrap `optimizer.step`; nothing of it is needed.
        instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", way_out=_OPTIMIZER_WAY_OUT)
        self.optimizer = optimizer
        self._rule = policy if isinstance(policy, CycleOnPlateau) else None
        self._rule_state = PlateauState()
        self._policies: Policies = [] if self._rule is not None else fitting(optimizer, policy)
        parts = _parts(self._policies)
        self._extra = check_extra(optimizer, extra, parts)
        self._total_steps: float = max((part.total_steps for part in parts), default=math.inf)
        self._table: tuple[int, list[Any]] = (0, [])
        self._on_cycle_end = on_cycle_end
        self._cycle_ends = {end: k for k, end in enumerate(parts[0].cycle_ends, 1)} if on_cycle_end and parts else {}
        self.last_epoch = 0
        self._write(0)
        # What the base class calls so: the rates at step 0.
        self.base_lrs = self.get_last_lr()

    @property
    def policy(self) -> Policies | CycleOnPlateau:
        """The policy, the list or dict of policies, or the rule."""
        return self._policies if self._rule is None else self._rule

    @property
    def _step_count(self) -> int:  # type: ignore[override]
        return self.last_epoch + 1

    def step(self, epoch: int | None = None, *, loss: float | Tensor | None = None) -> None:
        """Advance by one step and write its values.

        Args:
            epoch: must be left out; torch's schedulers take it.
            loss: the loss of the update just made, for a rule; averaged over ranks. A policy does not look at it.

        Raises:
            ArgumentTypeError: an epoch is given, or a rule gets no loss.
            PolicyError: a group was added for which there is no policy.
        """
        if epoch is not None:
            raise ArgumentTypeError(
                f"epoch must be left out, got {epoch!r}; the scheduler counts its own steps, one per optimizer update"
            )
        self._take_in_groups()
        before, state_before = self.last_epoch, self._rule_state
        try:
            if self._rule is not None:
                self._rule_state, _ = self._rule.next(state_before, _mean_over_ranks(loss))
            self._write(before + 1)
            self.last_epoch = before + 1
        except BaseException:
            # An interrupt between two writes must not leave one group a step ahead.
            self.last_epoch, self._rule_state = before, state_before
            self._write(before)
            raise
        if before == self._total_steps:
            warnings.warn(
                f"the policy has {self._total_steps} steps and step() was called {before + 1} times; "
                "its last values are held; for a longer run use policy.extend(total_steps=..., at_step=...)",
                UserWarning,
                stacklevel=2,
            )
        if self._on_cycle_end is not None:
            if before + 1 in self._cycle_ends:
                self._on_cycle_end(self, self._cycle_ends[before + 1])
            elif self._rule_state.num_cycles > state_before.num_cycles:
                self._on_cycle_end(self, self._rule_state.num_cycles)

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the rate of each group, as it is in the optimizer now."""
        rates = (group["lr"] for group in self.optimizer.param_groups)
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group at the present step; the same as :meth:`get_last_lr`."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the step, the policy and a rule's state as plain JSON values."""
        return {
            "version": _STATE_VERSION,
            "step": self.last_epoch,
            "policy": _described(self.policy),
            "extra": _described(self._extra),
            "rule_state": None if self._rule is None else list(self._rule_state),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the saved step and write its values.

        Raises:
            PolicyError: the state is not one of a PolicyLR, or belongs to a different policy, or a group was added for
                which there is no policy.
        """
        self._take_in_groups()
        expected = self.state_dict()
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(expected):
            raise PolicyError(
                f"state_dict must be that of a PolicyLR, got {describe(state_dict)}; "
                "for a torch scheduler's state, go to its step with set_hyperparameters(optimizer, policy, step)"
            )
        for name in ("version", "policy", "extra"):
            if not same(state_dict[name], expected[name]):  # a tuple is a list once it was JSON
                raise PolicyError(
                    f"state_dict must belong to the {name} {expected[name]}, got one of {state_dict[name]}; "
                    "make the PolicyLR with the saved policy, and change it with policy.extend()"
                )
        step = state_dict["step"]
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MOST_STEPS:
            raise PolicyError(f"state_dict must hold a step from 0 to 2**53, got {shown(step)}; the state is damaged")
        if self._rule is not None:
            self._rule_state = state_from(state_dict["rule_state"])
        self.last_epoch = step
        self._write(step)

    def _take_in_groups(self) -> None:
        """Give groups that were added their base rates, before anything is written; refuse those without a policy."""
        groups = self.optimizer.param_groups
        if len(groups) == len(self.base_lrs) and type(self._policies) is not dict:
            return
        if self._rule is None:
            check_groups(self.optimizer, self._policies, self.last_epoch)
        for group in groups[len(self.base_lrs) :]:
            if self._rule is not None:
                rate = self._rule.lr(self._rule.initial_state())
            else:
                policies = self._policies
                rate = (policies[group["name"]] if isinstance(policies, dict) else _parts(policies)[0]).at(0).lr
            self.base_lrs.append(torch.full_like(group["lr"], rate) if isinstance(group["lr"], Tensor) else rate)

    def _write(self, step: int) -> None:
        for name, policy in self._extra.items():
            write_extra(self.optimizer, name, policy.at(step).lr)
        if self._rule is not None:
            write_rates(self.optimizer, [self._rule.lr(self._rule_state)] * len(self.optimizer.param_groups))
            return
        # Values are computed a stretch at a time, as arrays: they have the same bits, and a step then costs a look-up.
        first, rows = self._table
        if not 0 <= step - first < len(rows):
            first, rows = self._table = (step, _rows(self._policies, step))
        write_values(self.optimizer, self._policies, rows[step - first])


def set_hyperparameters(
    optimizer: Optimizer, policy: Policy | Sequence[Policy] | Mapping[str, Policy], step: int
) -> None:
    """Write the values of one step into an optimizer: what :class:`PolicyLR` does, without an object.

    Args:
        optimizer: the optimizer; tensor rates and betas are written in place.
        policy: a policy for all groups, a list of one per group, or a dict of one per group's name.
        step: the step (optimizer update, counted from 0).

    Raises:
        ArgumentTypeError: `optimizer` is no torch optimizer, or `policy` no policy.
        PolicyError: the policy does not fit the optimizer, or `step` is not a whole number of at least 0.

    Example:
        >>> from cyclewise import OneCycle
        >>> import torch
        >>> optimizer = torch.optim.AdamW([torch.zeros(1)])
        >>> set_hyperparameters(optimizer, OneCycle(max_lr=0.4, total_steps=10), step=2)
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]
        (0.4, (0.9, 0.999))
    """
    instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", way_out=_OPTIMIZER_WAY_OUT)
    policies = fitting(optimizer, policy)
    step = as_one_step(step)
    values = policies.at(step) if isinstance(policies, Policy) else [part.at(step) for part in _parts(policies)]
    write_values(optimizer, policies, values)


def _parts(policies: Policies) -> list[Policy]:
    if isinstance(policies, Policy):
        return [policies]
    return list(policies.values()) if isinstance(policies, dict) else policies


def _rows(policies: Policies, first: int) -> list[Any]:
    """Return the values of the next steps: one row a step, for all groups or a tuple of one per policy."""
    if isinstance(policies, Policy):
        # A held value needs no more than one row.
        count = max(1, min(_STEPS_AT_ONCE, policies.total_steps - first))
        columns = policies.values(range(first, first + count))
        return list(zip(*([None] * count if column is None else column.tolist() for column in columns), strict=True))
    per_policy = [_rows(policy, first) for policy in _parts(policies)]
    count = max(map(len, per_policy))
    return list(zip(*(rows + rows[-1:] * (count - len(rows)) for rows in per_policy), strict=True))


def _described(policy: Policies | CycleOnPlateau) -> Any:
    if isinstance(policy, (Policy, CycleOnPlateau)):
        return policy.to_dict()
    if isinstance(policy, dict):
        return {name: part.to_dict() for name, part in policy.items()}
    return [part.to_dict() for part in policy]


def _mean_over_ranks(loss: float | Tensor | None) -> float:
    if loss is None:
        raise ArgumentTypeError(
            "loss must be given to step() of a rule, got None; call scheduler.step(loss=loss.item())"
        )
    # On the loss's own device, since the collective runs where the ranks' tensors are.
    return mean_over_ranks([float(loss)], loss.device if isinstance(loss, Tensor) else None)[0]
