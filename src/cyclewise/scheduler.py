"""Policies at work on an optimizer: the only writers of ``param_groups``.

Nothing but rate, momentum and weight decay is written, and only what the policy moves; no key is added to a group, and
no group is kept, so the optimizer may be loaded before or after its scheduler.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cyclewise._validation import describe, instance
from cyclewise.errors import ArgumentTypeError, PolicyError
from cyclewise.policies import Policy

_STATE_VERSION = 1
_STEPS_AT_ONCE = 1024
_OPTIMIZER_WAY_OUT = "make one first, for example torch.optim.SGD(model.parameters(), lr=0.1)"


class PolicyLR(LRScheduler):
    """Drive an optimizer by a policy: call :meth:`step` once after every optimizer update.

    The values of step 0 are written when it is made. Where a gradient scaler skips an update, skip the call. After the
    last step the last values are held.

    Args:
        optimizer: the optimizer to drive; tensor rates and betas are written in place.
        policy: a policy for all groups, also those added later, or a list of one per group.

    Raises:
        ArgumentTypeError: `optimizer` is no torch optimizer, or `policy` no policy.
        PolicyError: there are not as many policies as groups, or a policy moves what the optimizer does not have.

    Example:
        >>> import torch
        >>> from cyclewise import Linear
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

    def __init__(self, optimizer: Optimizer, policy: Policy | Sequence[Policy]) -> None:
        # The base class would add `initial_lr` to every group and wrap `optimizer.step`; nothing of it is needed.
        instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", way_out=_OPTIMIZER_WAY_OUT)
        self.optimizer = optimizer
        self._policies = _policies(optimizer, policy)
        self._total_steps = _total_steps(self._policies)
        self._table: tuple[int, list[Any]] = (0, [])
        self.last_epoch = 0
        self._write(0)
        # What the base class calls so: the rates at step 0.
        self.base_lrs = self.get_lr()

    @property
    def policy(self) -> Policy | list[Policy]:
        """The policy, or the list of one per group."""
        return self._policies if isinstance(self._policies, Policy) else list(self._policies)

    @property
    def _step_count(self) -> int:  # type: ignore[override]
        return self.last_epoch + 1

    def step(self, epoch: int | None = None) -> None:
        """Advance by one step and write its values.

        Raises:
            ArgumentTypeError: an epoch is given.
        """
        if epoch is not None:
            raise ArgumentTypeError(
                f"epoch must be left out, got {epoch!r}; the scheduler counts its own steps, one per optimizer update"
            )
        before = self.last_epoch
        try:
            self._write(before + 1)
            self.last_epoch = before + 1
        except BaseException:
            # An interrupt between two writes must not leave one group a step ahead.
            self.last_epoch = before
            self._write(before)
            raise
        if before == self._total_steps:
            warnings.warn(
                f"the policy has {self._total_steps} steps and step() was called {before + 1} times; "
                "its last values are held; for a longer run use policy.extend(total_steps=..., at_step=...)",
                UserWarning,
                stacklevel=2,
            )

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the rate of each group, as it is in the optimizer now."""
        rates = (group["lr"] for group in self.optimizer.param_groups)
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group at the present step."""
        if isinstance(self._policies, Policy):
            return [self._policies.at(self.last_epoch).lr] * len(self.optimizer.param_groups)
        return [policy.at(self.last_epoch).lr for policy in self._policies]

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the policy as plain JSON values."""
        policies = [self._policies] if isinstance(self._policies, Policy) else self._policies
        return {
            "version": _STATE_VERSION,
            "step": self.last_epoch,
            "shared": isinstance(self._policies, Policy),
            "policies": [policy.to_dict() for policy in policies],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the saved step and write its values.

        Raises:
            PolicyError: the state is not one of a PolicyLR, or belongs to a different policy.
        """
        expected = self.state_dict()
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(expected):
            raise PolicyError(
                f"state_dict must be that of a PolicyLR, got {describe(state_dict)}; "
                "for a torch scheduler's state, go to its step with set_hyperparameters(optimizer, policy, step)"
            )
        for name in ("version", "shared", "policies"):
            if state_dict[name] != expected[name]:
                raise PolicyError(
                    f"state_dict must belong to the policy {expected['policies']}, "
                    f"got one of {state_dict['policies']}; "
                    "make the PolicyLR with the saved policy, and change it with policy.extend()"
                )
        step = state_dict["step"]
        if not isinstance(step, int) or step < 0:
            raise PolicyError(f"state_dict must hold a step of at least 0, got {step!r}; the state is damaged")
        self.last_epoch = step
        self._write(step)

    def _write(self, step: int) -> None:
        # Values are computed a stretch at a time, as arrays: they have the same bits, and a step then costs a look-up.
        first, rows = self._table
        if not 0 <= step - first < len(rows):
            first, rows = self._table = (step, _rows(self._policies, step))
        _write_groups(self.optimizer.param_groups, rows[step - first], is_shared=isinstance(self._policies, Policy))


def set_hyperparameters(optimizer: Optimizer, policy: Policy | Sequence[Policy], step: int) -> None:
    """Write the values of one step into an optimizer: what :class:`PolicyLR` does, without an object.

    Args:
        optimizer: the optimizer; tensor rates and betas are written in place.
        policy: a policy for all groups, or a list of one per group.
        step: the step (optimizer update, counted from 0).

    Raises:
        ArgumentTypeError: `optimizer` is no torch optimizer, or `policy` no policy.
        PolicyError: the policy does not fit the optimizer, or `step` is negative.

    Example:
        >>> import torch
        >>> from cyclewise import OneCycle
        >>> optimizer = torch.optim.AdamW([torch.zeros(1)])
        >>> set_hyperparameters(optimizer, OneCycle(max_lr=0.4, total_steps=10), step=2)
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]
        (0.4, (0.9, 0.999))
    """
    instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", way_out=_OPTIMIZER_WAY_OUT)
    policies = _policies(optimizer, policy)
    (policies if isinstance(policies, Policy) else policies[0]).lr(step)  # refuses an impossible step
    is_shared = isinstance(policies, Policy)
    values = policies.at(step) if isinstance(policies, Policy) else [policy.at(step) for policy in policies]
    _write_groups(optimizer.param_groups, values, is_shared=is_shared)


def read_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def write_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Write the learning rate of each group; tensor rates in place."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        _write_number(group, "lr", rate)


def _policies(optimizer: Optimizer, policy: Any) -> Policy | list[Policy]:
    if isinstance(policy, Policy):
        _check_fit(optimizer, [policy] * len(optimizer.param_groups))
        return policy
    if not isinstance(policy, (list, tuple)) or not all(isinstance(part, Policy) for part in policy):
        raise ArgumentTypeError(
            f"policy must be a policy or a list of one per parameter group, got {describe(policy)}; "
            "pass for example OneCycle(max_lr=0.1, total_steps=1000)"
        )
    if len(policy) != len(optimizer.param_groups):
        raise PolicyError(
            f"policy must have one policy per parameter group, got {len(policy)} policies for "
            f"{len(optimizer.param_groups)} groups; pass a single policy to drive all groups alike"
        )
    _check_fit(optimizer, policy)
    return list(policy)


def _check_fit(optimizer: Optimizer, policies: Sequence[Policy]) -> None:
    for group, policy in zip(optimizer.param_groups, policies, strict=True):
        values = policy.at(0)
        if values.momentum is not None and "momentum" not in group and "betas" not in group:
            raise PolicyError(
                f"policy must not move the momentum of {type(optimizer).__name__}, which has neither momentum "
                f"nor betas, got {policy!r}; leave its momenta at None"
            )
        if values.weight_decay is not None and "weight_decay" not in group:
            raise PolicyError(
                f"policy must not move the weight decay of {type(optimizer).__name__}, which has none, "
                f"got {policy!r}; leave its weight decay at None"
            )


def _total_steps(policies: Policy | list[Policy]) -> int:
    parts = [policies] if isinstance(policies, Policy) else policies
    return max(policy.total_steps for policy in parts)


def _rows(policies: Policy | list[Policy], first: int) -> list[Any]:
    """Return the values of the next steps: one row a step, for all groups or a tuple of one per group."""
    if isinstance(policies, Policy):
        # A held value needs no more than one row.
        count = max(1, min(_STEPS_AT_ONCE, policies.total_steps - first))
        columns = policies.values(range(first, first + count))
        return list(zip(*([None] * count if column is None else column.tolist() for column in columns), strict=True))
    per_policy = [_rows(policy, first) for policy in policies]
    count = max(map(len, per_policy))
    return list(zip(*(rows + rows[-1:] * (count - len(rows)) for rows in per_policy), strict=True))


def _write_groups(groups: list[dict[str, Any]], values: Any, *, is_shared: bool) -> None:
    if is_shared:
        lr, momentum, weight_decay = values
        for group in groups:
            _write_group(group, lr, momentum, weight_decay)
    else:
        for group, (lr, momentum, weight_decay) in zip(groups, values, strict=True):
            _write_group(group, lr, momentum, weight_decay)


def _write_group(group: dict[str, Any], lr: float, momentum: float | None, weight_decay: float | None) -> None:
    if type(group["lr"]) is float:
        group["lr"] = lr
    else:
        _write_number(group, "lr", lr)
    if momentum is not None:
        if "betas" not in group:
            _write_number(group, "momentum", momentum)
        else:
            betas = group["betas"]
            if isinstance(betas[0], Tensor):
                betas[0].fill_(momentum)
            elif type(betas) is tuple:
                group["betas"] = (momentum, *betas[1:])
            else:
                betas[0] = momentum
    if weight_decay is not None:
        _write_number(group, "weight_decay", weight_decay)


def _write_number(group: dict[str, Any], name: str, value: float) -> None:
    present = group[name]
    if isinstance(present, Tensor):
        present.fill_(value)
    else:
        group[name] = value
