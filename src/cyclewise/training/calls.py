"""The numbered calls of a script: made again after a resume, those that are done are looked up."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cyclewise._validation import instance
from cyclewise.errors import ArgumentError, CheckpointError
from cyclewise.policies import Policy, identity
from cyclewise.range_test import RangeTest, usual_options
from cyclewise.training.history import History

_WAY_OUT = (
    "after resume() make the same calls in the same order; to train on in another way use learn.load(directory) instead"
)


@dataclass(frozen=True)
class FinishedFit:
    """What is kept of a fit that ended.

    Attributes:
        history: its record.
        snapshots: the states of its :class:`Snapshots`, in the order of the callbacks.
        places: where each rank was in the data, and its random number generators, at the end: what a script draws
            between two fits is then drawn again.
    """

    history: History
    snapshots: Sequence[Mapping[str, Any]]
    places: Sequence[Mapping[str, Any]]


class Calls:
    """Range tests and fits in the order in which they ended.

    Example:
        >>> calls = Calls()
        >>> calls.add_fit("Constant(lr=0.1, total_steps=1)", History(lr=[0.1], momentum=[0.9], loss=[2.0]))
        >>> later = Calls()
        >>> later.load(calls.state_dict())
        >>> print(later.finished_fit("Constant(lr=0.1, total_steps=1)").history)
        1 step in 0 epochs
        >>> later.finished_fit("Constant(lr=0.1, total_steps=1)") is None  # the second fit has not been made
        True
    """

    def __init__(self) -> None:
        self._done: list[dict[str, Any]] = []
        self._ahead: deque[dict[str, Any]] = deque()

    @property
    def num_fits(self) -> int:
        """Fits that ended, or were looked up, so far in this script."""
        return _num_fits(self._done) - _num_fits(self._ahead)

    def add_range_test(self, record: RangeTest) -> None:
        """Note a range test."""
        self._done.append({"kind": "lr_find", "record": record.to_dict()})

    def add_fit(
        self,
        policy: str,
        history: History,
        *,
        snapshots: Sequence[Mapping[str, Any]] = (),
        places: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Note a fit that ended, with what :class:`FinishedFit` says of it; `policy` as text."""
        self._done.append(
            {
                "kind": "fit",
                "policy": policy,
                "history": packed(history),
                "snapshots": list(snapshots),
                "places": list(places),
            }
        )

    def range_test(self, options: Mapping[str, Any]) -> RangeTest | None:
        """Return the record of the range test that the script made here before it was resumed; None if it is new.

        Raises:
            CheckpointError: it was made with other options.
        """
        if not self._ahead or self._ahead[0]["kind"] != "lr_find":
            return None
        record = RangeTest.from_dict(self._ahead[0]["record"])
        saved = dict(record.settings)
        for name, usual in usual_options().items():
            if name in saved and (given := options.get(name, usual)) != saved[name]:
                raise CheckpointError(f"lr_find of the saved run has {name}={saved[name]!r}, got {given!r}; {_WAY_OUT}")
        self._ahead.popleft()
        return record

    def finished_fit(self, policy: str) -> FinishedFit | None:
        """Return what is left of the fit that the script made here before it was resumed; None if it is new.

        Raises:
            CheckpointError: it was made with another policy.
        """
        while self._ahead and self._ahead[0]["kind"] == "lr_find":
            self._ahead.popleft()
        if not self._ahead:
            return None
        number = self.num_fits + 1
        call = self._ahead[0]
        check_policy(number, call["policy"], policy)
        self._ahead.popleft()
        return FinishedFit(unpacked(call["history"]), call["snapshots"], call["places"])

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the calls as tensors and plain values."""
        return list(self._done)

    def load(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Look the next calls up in those of an earlier run."""
        self._done = [dict(call) for call in calls]
        self._ahead = deque(self._done)


def _num_fits(calls: Iterable[Mapping[str, Any]]) -> int:
    return len([call for call in calls if call["kind"] == "fit"])


def check_policy(number: int, saved: str, given: str) -> None:
    """Refuse a fit that is not the one that was saved.

    Raises:
        CheckpointError: the policies differ.
    """
    if saved != given:
        raise CheckpointError(f"fit {number} of the saved run has the policy {saved}, got {given}; {_WAY_OUT}")


def as_policies(policy: Any) -> list[Policy]:
    """Return a policy, or a list of one per group, as a list.

    Raises:
        ArgumentError: their lengths differ, or there are none.
        ArgumentTypeError: it is neither.
    """
    policies = list(policy) if isinstance(policy, (list, tuple)) else [policy]
    for part in policies:
        instance("policy", part, Policy, "a policy, or a list of one per parameter group",
                 way_out="pass for example OneCycle(max_lr=0.1, total_steps=1000)")  # fmt: skip
    lengths = {part.total_steps for part in policies}
    if len(lengths) != 1:
        raise ArgumentError(
            f"policy must have one total_steps for all groups, got {sorted(lengths)}; "
            "make the shorter ones longer with extend()"
        )
    return policies


def as_text(policies: Sequence[Policy], wd: float | None = None) -> str:
    """Return policies, and the weight decay of the fit, as one text by which fits are told apart."""
    # By equality: a user's own policy need not have a hash.
    are_alike = all(policy == policies[0] for policy in policies)
    parts = list(map(identity.text, policies[:1] if are_alike else policies))
    return "; ".join(parts if wd is None else [*parts, f"wd={wd!r}"])


def packed(history: History) -> dict[str, Any]:
    """Return a history as tensors and plain values."""
    values = history.to_dict()
    arrays = {name: torch.tensor(getattr(history, name)) for name in ("lr", "momentum", "loss")}
    # Not as in JSON, where a loss that is not a number would come back as one that was never computed.
    return {**values, **arrays, "epochs": [asdict(epoch) for epoch in history.epochs]}


def unpacked(values: Mapping[str, Any]) -> History:
    """Return the history that :func:`packed` described."""
    arrays = {name: values[name].tolist() for name in ("lr", "momentum", "loss")}
    return History.from_dict({**values, **arrays})
