"""A policy written in epochs, turned into one in steps."""

import dataclasses
from typing import Any

from cyclewise.errors import PolicyError
from cyclewise.policies import checks
from cyclewise.policies.base import Policy
from cyclewise.policies.cyclical import Cyclical

# Every field that counts steps, in all policies.
_COUNTS = frozenset(
    {"total_steps", "step_size_up", "step_size_down", "T_0", "milestones", "warmup_steps", "decay_steps", "at_step"}
)


def in_steps(policy: Policy, steps_per_epoch: int) -> Policy:
    """Return `policy` with its counts multiplied by `steps_per_epoch`; what ``policy.in_epochs`` does.

    Example:
        >>> from cyclewise import Cosine, Join, Linear
        >>> policy = Join([Linear(start_lr=0.0, end_lr=0.1, total_steps=1), Cosine(max_lr=0.1, total_steps=9)])
        >>> in_steps(policy, 100).cycle_ends
        [100, 1000]
    """
    factor = checks.whole("steps_per_epoch", steps_per_epoch, "pass len(train_loader)")
    fields: dict[str, dataclasses.Field[Any]] | None = getattr(policy, "__dataclass_fields__", None)
    if fields is None:
        raise PolicyError(
            f"policy must be a dataclass to be turned into steps, got a {type(policy).__name__}; override in_epochs"
        )
    changes = {name: _scaled(name, getattr(policy, name), factor) for name, field in fields.items() if field.init}
    if isinstance(policy, Cyclical):
        changes["gamma"] = policy.gamma ** (1.0 / factor)
    return type(policy)(**changes)


def _scaled(name: str, value: Any, factor: int) -> Any:
    if isinstance(value, Policy):
        return in_steps(value, factor)
    if isinstance(value, tuple):
        return tuple(_scaled(name, item, factor) for item in value)
    return value * factor if name in _COUNTS and value is not None else value
