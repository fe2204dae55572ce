"""The article's claims as pure functions of histories: each with a criterion in words, and whether it was seen.

Every function takes the histories of a setting, one per seed, and judges by means over them. None stands for a run that
diverged; then nothing can be said. The thresholds were set before anything was run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from cyclewise.training import History

Histories = Sequence[History | None]


@dataclass(frozen=True)
class Claim:
    """A claim, and what became of it.

    Attributes:
        statement: what the article says.
        subject: which setting, or which two.
        criterion: what counts as seen.
        seen: whether it was; None where a run diverged.
        numbers: what was measured.
    """

    statement: str
    subject: str
    criterion: str
    seen: bool | None
    numbers: str

    @property
    def outcome(self) -> str:
        """The result in two words."""
        return {True: "seen", False: "not seen", None: "diverged"}[self.seen]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Claim":
        """Return the claim that :meth:`to_dict` described."""
        return cls(**values)


def unstable_in_the_middle(subject: str, histories: Histories) -> Claim:
    """Judge "the validation loss is unstable in the middle" by its changes from one epoch to the next."""
    numbers = _means(histories, lambda h: (_roughness(h, 1 / 3, 2 / 3), _roughness(h, 0.9, 1.0)))
    middle, end = numbers or (math.nan, math.nan)
    return Claim(
        "The validation loss is unstable in the middle",
        subject,
        "in the middle third it changes from epoch to epoch by 5 % or more (median), and at least twice as much as in "
        "the last tenth",
        None if numbers is None else middle >= 0.05 and middle >= 2 * end,
        f"changes of {100 * middle:.1f} % in the middle, {100 * end:.1f} % at the end",
    )


def falls_at_the_end(subject: str, histories: Histories) -> Claim:
    """Judge "the validation loss falls at the end" by the middle third."""
    numbers = _means(histories, lambda h: (_level(h, 1 / 3, 2 / 3), _level(h, 0.95, 1.0)))
    middle, end = numbers or (math.nan, math.nan)
    return Claim(
        "The validation loss falls at the end",
        subject,
        "its median over the last twentieth is lower by a tenth or more than over the middle third",
        None if numbers is None else end <= 0.9 * middle,
        f"{middle:.4f} in the middle, {end:.4f} at the end",
    )


def small_gap(subject: str, histories: Histories) -> Claim:
    """Judge "the validation loss ends close to the training loss" by their last values."""
    numbers = _means(histories, lambda h: (h.epochs[-1].train_loss, _valid(h)[-1]))
    train, valid = numbers or (math.nan, math.nan)
    return Claim(
        "The validation loss ends close to the training loss",
        subject,
        "the two differ by at most a quarter of the validation loss",
        None if numbers is None else abs(valid - train) <= 0.25 * valid,
        f"training {train:.4f}, validation {valid:.4f}",
    )


def higher_and_shorter(subject: str, short: Histories, long: Histories) -> Claim:
    """Judge "a higher rate in a shorter cycle does as well" by the final accuracy."""
    numbers = _pair(_accuracy, short, long)
    own, other = numbers or (math.nan, math.nan)
    return Claim(
        "A higher rate trains as well in a shorter cycle",
        subject,
        "the final accuracy is at most 0.5 points below that of the longer cycle with the lower rate",
        None if numbers is None else own >= other - 0.005,
        f"{100 * own:.2f} % against {100 * other:.2f} %",
    )


def longer_for_the_loss(subject: str, long: Histories, short: Histories) -> Claim:
    """Judge "a longer cycle may be needed for a loss that is not too big" by the final validation loss."""
    numbers = _pair(_final_loss, long, short)
    own, other = numbers or (math.nan, math.nan)
    return Claim(
        "With the higher rate, a longer cycle is needed for a loss that is not too big",
        subject,
        "the final validation loss of the longer cycle is lower by 5 % or more",
        None if numbers is None else own <= 0.95 * other,
        f"{own:.4f} against {other:.4f}",
    )


def near_in_accuracy(subject: str, constant: Histories, changing: Histories) -> Claim:
    """Judge "constant momentum is near in accuracy" by the final accuracy."""
    numbers = _pair(_accuracy, constant, changing)
    own, other = numbers or (math.nan, math.nan)
    return Claim(
        "Constant momentum gets near the accuracy of the changing one",
        subject,
        "the final accuracies differ by at most 0.5 points",
        None if numbers is None else abs(own - other) <= 0.005,
        f"{100 * own:.2f} % against {100 * other:.2f} %",
    )


def larger_loss(subject: str, constant: Histories, changing: Histories) -> Claim:
    """Judge "with a larger loss" by the final validation loss."""
    numbers = _pair(_final_loss, constant, changing)
    own, other = numbers or (math.nan, math.nan)
    return Claim(
        "Constant momentum has a larger loss",
        subject,
        "the final validation loss is higher by 1 % or more",
        None if numbers is None else own >= 1.01 * other,
        f"{own:.4f} against {other:.4f}",
    )


def less_time(subject: str, constant: Histories, changing: Histories) -> Claim:
    """Judge "in less time" by the wall clock."""
    numbers = _pair(lambda h: sum(epoch.seconds for epoch in h.epochs), constant, changing)
    own, other = numbers or (math.nan, math.nan)
    return Claim(
        "Constant momentum takes less time",
        subject,
        "the run takes at least 2 % less wall-clock time for the same steps",
        None if numbers is None else own <= 0.98 * other,
        f"{own:.1f} s against {other:.1f} s",
    )


def lowering_helps(subject: str, changing: Histories, others: Sequence[Histories]) -> Claim:
    """Judge "lowering the momentum while the rate rises helps" against every other choice of momenta."""
    pairs = [_pair(_accuracy, changing, other) for other in others]
    known = [pair for pair in pairs if pair is not None]
    own = known[0][0] if known else math.nan
    best = max((other for _, other in known), default=math.nan)
    return Claim(
        "Lowering the momentum while the rate rises helps",
        subject,
        "the final accuracy is higher than with constant, rising, and constantly low or high momentum",
        None if len(known) < len(pairs) else own > best,
        f"{100 * own:.2f} % against {100 * best:.2f} % at best",
    )


def _means(histories: Histories, measure: Callable[[History], tuple[float, float]]) -> tuple[float, float] | None:
    known = [history for history in histories if history is not None]
    if not known or len(known) < len(histories):
        return None
    first, second = zip(*map(measure, known), strict=True)
    return fmean(first), fmean(second)


def _pair(measure: Callable[[History], float], own: Histories, other: Histories) -> tuple[float, float] | None:
    if None in own or None in other or not own or not other:
        return None
    return fmean(measure(h) for h in own if h is not None), fmean(measure(h) for h in other if h is not None)


def _valid(history: History) -> list[float]:
    return [math.nan if epoch.valid_loss is None else epoch.valid_loss for epoch in history.epochs]


def _final_loss(history: History) -> float:
    return _valid(history)[-1]


def _accuracy(history: History) -> float:
    return history.epochs[-1].metrics["accuracy"]


def _part(history: History, start: float, end: float) -> list[float]:
    losses = _valid(history)
    first = min(round(start * len(losses)), len(losses) - 1)
    return losses[first : max(first + 1, round(end * len(losses)))]


def _level(history: History, start: float, end: float) -> float:
    return median(_part(history, start, end))


def _roughness(history: History, start: float, end: float) -> float:
    losses = _part(history, start, end)
    changes = [abs(after - before) / before for before, after in pairwise(losses) if before > 0]
    return median(changes) if changes else 0.0
