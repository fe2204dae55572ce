"""Reading and writing an optimizer's hyperparameters, group by group; tensors are written in place."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cyclewise._validation import describe
from cyclewise.errors import ArgumentTypeError, PolicyError
from cyclewise.policies import Policy

Groups = list[dict[str, Any]]
# One policy for all groups, one per group in order, or one per group by the group's "name".
Policies = Policy | list[Policy] | dict[str, Policy]
# The tensors, by id, that were written while values that may differ are put into one group after the other.
Written = set[int]


def read_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def write_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Write the learning rate of each group."""
    written: Written = set()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        _write_number(group, "lr", rate, written)


def write_values(optimizer: Optimizer, policies: Policies, values: Any) -> None:
    """Write the values of one step: (lr, momentum, weight decay), or as many of them as there are policies."""
    groups = optimizer.param_groups
    # By exact type, since asking an abstract class costs as much as all the rest of a step.
    if type(policies) is list:
        written: Written = set()
        for group, (lr, momentum, weight_decay) in zip(groups, values, strict=True):
            write_group(optimizer, group, lr, momentum, weight_decay, written)
    elif type(policies) is dict:
        written = set()
        by_name = dict(zip(policies, values, strict=True))
        for group in groups:
            lr, momentum, weight_decay = by_name[group["name"]]
            write_group(optimizer, group, lr, momentum, weight_decay, written)
    else:
        lr, momentum, weight_decay = values
        for group in groups:
            write_group(optimizer, group, lr, momentum, weight_decay, None)


def write_group(
    optimizer: Optimizer,
    group: dict[str, Any],
    lr: float,
    momentum: float | None,
    weight_decay: float | None,
    written: Written | None,
) -> None:
    """Write one group; None leaves a hyperparameter alone.

    Args:
        optimizer: whose group it is.
        group: the group.
        lr: learning rate.
        momentum: momentum or beta1.
        weight_decay: weight decay.
        written: the tensors that hold the values of other groups already; None where all groups get the same values.
    """
    if type(group["lr"]) is float:
        group["lr"] = lr
    else:
        _write_number(group, "lr", lr, written)
    if momentum is not None:
        if "betas" not in group:
            if momentum > 0 and not group["momentum"] > 0:
                _make_buffers(optimizer, group)
            _write_number(group, "momentum", momentum, written)
        else:
            betas = group["betas"]
            if isinstance(betas[0], Tensor):
                own = _own(betas[0], written)
                own.fill_(momentum)
                if own is not betas[0]:
                    group["betas"] = type(betas)((own, *betas[1:]))
            elif type(betas) is tuple:
                group["betas"] = (momentum, *betas[1:])
            else:
                # A new list, since the optimizer's constructor gives all groups the same one.
                group["betas"] = [momentum, *betas[1:]]
    if weight_decay is not None:
        _write_number(group, "weight_decay", weight_decay, written)


def write_extra(optimizer: Optimizer, name: str, value: float) -> None:
    """Write any other hyperparameter into all groups; ``"beta2"`` is the second of Adam's betas."""
    for group in optimizer.param_groups:
        if name == "momentum" and value > 0 and not group["momentum"] > 0:
            _make_buffers(optimizer, group)
        if name != "beta2":
            _write_number(group, name, value, None)
        elif isinstance(group["betas"][1], Tensor):
            group["betas"][1].fill_(value)
        else:
            group["betas"] = type(group["betas"])((group["betas"][0], value))


def check_extra(
    optimizer: Optimizer, extra: Mapping[str, Policy], policies: Sequence[Policy] = ()
) -> dict[str, Policy]:
    """Return `extra` if every group has what it moves, and none of the groups' own `policies` moves it.

    Raises:
        ArgumentTypeError: a value is no policy.
        PolicyError: a group has no such hyperparameter, or it belongs to the policy itself.
    """
    for name, policy in extra.items():
        if not isinstance(policy, Policy):
            raise ArgumentTypeError(f"extra[{name!r}] must be a policy, got {describe(policy)}; make it a Constant")
        key = "betas" if name == "beta2" else name
        for group in optimizer.param_groups:
            is_number = key == "betas" or type(group.get(key)) in (int, float) or isinstance(group.get(key), Tensor)
            if name in ("lr", "params", "betas") or key not in group or not is_number:
                known = [key for key, value in group.items() if type(value) in (int, float) and key != "lr"]
                known = sorted([*known, "beta2"] if "betas" in group else known)
                raise PolicyError(
                    f"extra must name numbers in the parameter groups of {type(optimizer).__name__}, got {name!r}; "
                    f"it has: {', '.join(known)}"
                )
        # Whichever of the two came second would be all that is seen.
        if name in ("momentum", "weight_decay") and any(getattr(part.at(0), name) is not None for part in policies):
            raise PolicyError(
                f"extra must not name what the policy itself moves, got {name!r}; leave it out of extra, or leave the "
                "policy's own at None"
            )
    return dict(extra)


def fitting(optimizer: Optimizer, policy: Any) -> Policies:
    """Return the policy, list or dict of policies, if it fits the optimizer.

    Raises:
        ArgumentTypeError: it is none of these.
        PolicyError: there are not as many policies as groups, a group has no policy of its name, or a policy moves what
            the optimizer does not have.
    """
    groups = optimizer.param_groups
    if isinstance(policy, Policy):
        per_group: Sequence[Policy] = [policy] * len(groups)
        policies: Policies = policy
    elif isinstance(policy, Mapping) and policy and all(isinstance(part, Policy) for part in policy.values()):
        policies = dict(policy)
        per_group = [_named(policies, group) for group in groups]
    elif isinstance(policy, (list, tuple)) and all(isinstance(part, Policy) for part in policy):
        if len(policy) != len(groups):
            raise PolicyError(
                f"policy must have one policy per parameter group, got {len(policy)} policies for "
                f"{len(groups)} groups; pass a single policy to drive all groups alike"
            )
        per_group = policies = list(policy)
    else:
        raise ArgumentTypeError(
            "policy must be a policy, a list of one per parameter group, or a dict of them by the groups' names, "
            f"got {describe(policy)}; pass for example OneCycle(max_lr=0.1, total_steps=1000)"
        )
    for group, part in zip(groups, per_group, strict=True):
        _check_fit(type(optimizer).__name__, group, part)
    return policies


def check_groups(optimizer: Optimizer, policies: Policies, step: int) -> None:
    """Refuse groups that have come, or got another name, since the policies were found to fit.

    Raises:
        PolicyError: a group has no policy; `step` is where the scheduler is, for the way out.
    """
    groups = optimizer.param_groups
    if type(policies) is list and len(policies) != len(groups):
        raise PolicyError(
            f"policy must have one policy per parameter group, got {len(policies)} policies for {len(groups)} groups, "
            "since the groups changed; make a new PolicyLR with a policy for each, and go on with "
            f"load_state_dict({{**its.state_dict(), 'step': {step}}})"
        )
    if type(policies) is dict:
        for group in groups:
            _named(policies, group)


def _named(policies: dict[str, Policy], group: dict[str, Any]) -> Policy:
    name = group.get("name")
    if name not in policies:
        raise PolicyError(
            f'policy must have an entry for every group\'s "name", got {sorted(policies)} for a group named {name!r}; '
            'name the groups: {"params": ..., "name": "head"}'
        )
    return policies[name]


def _check_fit(optimizer_name: str, group: dict[str, Any], policy: Policy) -> None:
    values = policy.at(0)
    if values.momentum is not None and "momentum" not in group and "betas" not in group:
        raise PolicyError(
            f"policy must not move the momentum of {optimizer_name}, which has neither momentum "
            f"nor betas, got {policy!r}; leave its momenta at None (in fit_one_cycle: moms=None)"
        )
    if values.weight_decay is not None and "weight_decay" not in group:
        raise PolicyError(
            f"policy must not move the weight decay of {optimizer_name}, which has none, "
            f"got {policy!r}; leave its weight decay at None"
        )


def _write_number(group: dict[str, Any], name: str, value: float, written: Written | None) -> None:
    present = group[name]
    if isinstance(present, Tensor):
        own = _own(present, written)
        own.fill_(value)
        if own is not present:
            group[name] = own
    else:
        group[name] = value


def _make_buffers(optimizer: Optimizer, group: dict[str, Any]) -> None:
    """Give the states of a group that RMSprop has begun without momentum the buffers that it then looks for.

    It makes them with the rest of a state, and only where there is a momentum; without one they would still be zeros.
    SGD makes its own when it needs them.
    """
    for parameter in group["params"]:
        state = optimizer.state.get(parameter)
        if state and "square_avg" in state and "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def _own(tensor: Tensor, written: Written | None) -> Tensor:
    """Return a tensor that no group before this one holds its value in.

    Torch puts the one tensor that an optimizer is made with into all its groups; so does an added group's default.
    """
    if written is None:
        return tensor
    if id(tensor) in written:
        tensor = tensor.clone()
    written.add(id(tensor))
    return tensor
