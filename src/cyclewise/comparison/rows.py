"""One policy's row in a comparison: its numbers, what could not be had and why, and the verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from statistics import fmean
from typing import Any

from cyclewise.comparison import statistics
from cyclewise.comparison.runs import Run
from cyclewise.comparison.tuning import Tuned
from cyclewise.range_test import Refusal


class Missing(Enum):
    """Why a number of a row could not be had."""

    DIVERGED = "a run of this policy diverged"
    BASELINE_DIVERGED = "a run of the baseline diverged"
    ONE_SEED = "one seed shows no spread"
    BASELINE = "it is the baseline itself"
    NO_TARGET = "no target was given"
    NOT_REACHED = "not every run reached the target"
    NOT_TUNED = "it was not tuned"
    REFUSED = "the range test refused to give a rate"
    BASELINE_REFUSED = "the range test refused to give the baseline a rate"


@dataclass(frozen=True)
class Question:
    """What is asked of the runs.

    Attributes:
        metric: name of the score, on validation data.
        lower_is_better: its direction.
        baseline: name of the policy that the others are held against.
        seeds: one run of each policy per seed.
        target: a score to reach; None for none.
        alpha: the chance of an error over all verdicts that is put up with.
        seed: draws the signs of the test where there are too many to try all.
        is_direction_assumed: whether nothing told the direction, neither an argument nor the metric's name.
    """

    metric: str
    lower_is_better: bool
    baseline: str
    seeds: tuple[int, ...]
    target: float | None = None
    alpha: float = 0.05
    seed: int = 0
    is_direction_assumed: bool = False

    @property
    def direction(self) -> str:
        """Which way the metric gets better, in a word."""
        return "lower" if self.lower_is_better else "higher"


@dataclass(frozen=True, eq=False)
class Row:
    """One policy.

    Attributes:
        name: of the policy.
        mean: of the metric at the end, over the seeds.
        std_error: standard error of `mean`.
        difference: mean of policy minus baseline, seed by seed; 0.0 for the baseline.
        p_value: two-sided, of the paired sign-flip test, corrected by Holm for the number of policies; None for the
            baseline.
        p_value_uncorrected: the same without the correction.
        interval: 95 % interval of `difference` by Student's t, not corrected.
        values: the metric at the end of each run; None where it diverged.
        num_diverged: runs whose loss stopped being finite, or whose metric is not.
        lr: highest learning rate.
        total_steps: length of the policy.
        num_steps: mean optimizer updates of a run; fewer than `total_steps` where one diverged.
        seconds: mean wall-clock time of a run, validation included.
        steps_to_target: mean optimizer updates to the first epoch's end with the target reached.
        seconds_to_target: the same in seconds.
        num_reached: runs that reached the target.
        tuned_lr: the rate that tuning found; None where there was no tuning.
        tuning_steps: what tuning cost in optimizer updates.
        tuning_seconds: and in seconds.
        tuning: rate and mean score of each rate tried in a grid.
        refusals: why range tests gave no rate, each with its `remedy`, one for each seed of tuning that gave none.
        policy: what :meth:`Policy.to_dict` returned.
        verdict: the outcome in words.
        unavailable: attribute -> why it is None.
        runs: the runs, seed by seed.
    """

    name: str
    mean: float | None = None
    std_error: float | None = None
    difference: float | None = None
    p_value: float | None = None
    p_value_uncorrected: float | None = None
    interval: tuple[float, float] | None = None
    values: tuple[float | None, ...] = ()
    num_diverged: int = 0
    lr: float | None = None
    total_steps: int = 0
    num_steps: float = 0.0
    seconds: float = 0.0
    steps_to_target: float | None = None
    seconds_to_target: float | None = None
    num_reached: int = 0
    tuned_lr: float | None = None
    tuning_steps: int = 0
    tuning_seconds: float = 0.0
    tuning: tuple[tuple[float, float | None], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    policy: Mapping[str, Any] | None = None
    verdict: str = ""
    unavailable: Mapping[str, Missing] = field(default_factory=dict)
    runs: tuple[Run, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self._found() == other._found()

    def __hash__(self) -> int:
        return hash((self.name, self.values))

    def _found(self) -> dict[str, Any]:
        times = dict.fromkeys(("seconds", "seconds_to_target", "tuning_seconds"))
        return {**self.to_dict(), **times, "runs": self.runs}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **vars(self),
            "values": list(self.values),
            "interval": None if self.interval is None else list(self.interval),
            "tuning": [list(pair) for pair in self.tuning],
            "refusals": [refusal.name for refusal in self.refusals],
            "unavailable": {name: reason.name for name, reason in self.unavailable.items()},
            "runs": [run.to_dict() for run in self.runs],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """Return the row that :meth:`to_dict` described."""
        interval = values["interval"]
        return cls(**{
            **values,
            "values": tuple(values["values"]),
            "interval": None if interval is None else (interval[0], interval[1]),
            "tuning": tuple((lr, score) for lr, score in values["tuning"]),
            "refusals": tuple(Refusal[name] for name in values.get("refusals", ())),
            "unavailable": {name: Missing[reason] for name, reason in values["unavailable"].items()},
            "runs": tuple(Run.from_dict(run) for run in values["runs"]),
        })  # fmt: skip


def make_rows(question: Question, runs: Mapping[str, Sequence[Run]], tuned: Mapping[str, Tuned]) -> tuple[Row, ...]:
    """Return a row per policy, in the order of `tuned`.

    Args:
        question: what is asked.
        runs: name -> runs, seed by seed; none for a policy whose tuning was refused.
        tuned: name -> the policy that was run.
    """
    alone = [_alone(question, name, runs.get(name, ()), tuned[name]) for name in tuned]
    baseline = next(row for row in alone if row.name == question.baseline)
    paired = [_against(question, row, baseline) for row in alone]
    known = [row for row in paired if row.p_value_uncorrected is not None]
    # Corrected for all that were asked about, also for those that had no answer.
    others = len(paired) - 1
    raw = [row.p_value_uncorrected for row in known if row.p_value_uncorrected is not None]
    corrected = dict(
        zip((row.name for row in known), statistics.holm([*raw, *[1.0] * (others - len(raw))]), strict=False)
    )
    rows = [replace(row, p_value=corrected.get(row.name)) for row in paired]
    return tuple(replace(row, verdict=verdict(question, row, others)) for row in rows)


def verdict(question: Question, row: Row, num_others: int) -> str:
    """Return a row's outcome in words: who is better by how much, or why that cannot be said."""
    if row.unavailable.get("mean") is Missing.REFUSED:
        return f"not run: the range test refused to give a rate: {reasons(row)}"
    if row.num_diverged:
        return f"{row.num_diverged} of {len(row.values)} runs diverged"
    if row.name == question.baseline:
        return "the baseline"
    if row.difference is None or row.p_value is None:
        return f"not compared: {row.unavailable['difference'].value}"
    word = "better" if (row.difference < 0) == question.lower_is_better else "worse"
    amount = f"{question.metric} {signed(row.difference)}"
    if row.interval is not None:
        amount += f" [{signed(row.interval[0])}, {signed(row.interval[1])}]"
    if row.p_value <= question.alpha:
        return f"{word} than {question.baseline}: {amount}, p = {row.p_value:.2g}"
    enough = too_few_seeds(question, num_others)
    if enough:
        return f"no verdict: {amount}, p = {row.p_value:.2g}; {enough}"
    return f"no difference shown: {amount}, p = {row.p_value:.2g}"


def reasons(row: Row) -> str:
    """Return why range tests gave the policy no rate, each reason once.

    >>> reasons(Row("fixed", refusals=(Refusal.FROZEN, Refusal.FROZEN)))
    'no parameter requires a gradient'
    """
    return "; ".join(dict.fromkeys(refusal.value for refusal in row.refusals))


def too_few_seeds(question: Question, num_others: int) -> str:
    """Return why so few seeds cannot give a verdict whatever they say; empty where they can.

    >>> too_few_seeds(Question("loss", True, "a", (0, 1, 2, 3, 4)), 3)
    '5 seeds cannot give a two-sided p below 0.0625; a verdict at 5 % needs at least 6 seeds (7 with the correction for
    3 policies)'
    >>> too_few_seeds(Question("loss", True, "a", tuple(range(8))), 3)
    ''
    """
    n, alpha = len(question.seeds), question.alpha
    smallest = statistics.smallest_p_value(n)
    if max(num_others, 1) * smallest <= alpha:
        return ""
    alone = statistics.seeds_for_verdict(1, alpha=alpha)
    together = statistics.seeds_for_verdict(max(num_others, 1), alpha=alpha)
    needs = f"a verdict at {100 * alpha:g} % needs at least {alone} seeds"
    if together > alone:
        needs += f" ({together} with the correction for {num_others} policies)"
    return f"{n} seed{'' if n == 1 else 's'} cannot give a two-sided p below {smallest:.4g}; {needs}"


def signed(value: float) -> str:
    """Return a number with its sign and three significant digits.

    >>> signed(0.01234), signed(-2.0)
    ('+0.0123', '-2')
    """
    return f"{value:+.3g}"


def _alone(question: Question, name: str, runs: Sequence[Run], tuned: Tuned) -> Row:
    common: dict[str, Any] = {
        "name": name,
        "lr": tuned.lr,
        "tuned_lr": tuned.lr if tuned.num_steps else None,
        "tuning_steps": tuned.num_steps,
        "tuning_seconds": tuned.seconds,
        "tuning": tuned.candidates,
        "refusals": tuned.refusals,
    }
    if tuned.policy is None:
        missing = ("mean", "std_error", "steps_to_target", "seconds_to_target", "lr", "tuned_lr", "policy")
        return Row(**common, unavailable=dict.fromkeys(missing, Missing.REFUSED))
    values = tuple(run.final(question.metric) for run in runs)
    unavailable: dict[str, Missing] = {} if tuned.num_steps else {"tuned_lr": Missing.NOT_TUNED}
    mean = std_error = None
    if None in values:
        unavailable |= dict.fromkeys(("mean", "std_error"), Missing.DIVERGED)
    else:
        mean, std_error = statistics.mean_and_error([value for value in values if value is not None])
        if std_error is None:
            unavailable["std_error"] = Missing.ONE_SEED
    reached: list[tuple[int, float]] = []
    if question.target is not None:
        firsts = (
            run.first_at(question.metric, question.target, lower_is_better=question.lower_is_better) for run in runs
        )
        reached = [first for first in firsts if first is not None]
    all_reached = len(reached) == len(values)
    if question.target is None or not all_reached:
        reason = Missing.NO_TARGET if question.target is None else Missing.NOT_REACHED
        unavailable |= dict.fromkeys(("steps_to_target", "seconds_to_target"), reason)
    return Row(
        **common,
        mean=mean,
        std_error=std_error,
        values=values,
        num_diverged=values.count(None),
        total_steps=tuned.policy.total_steps,
        num_steps=fmean(run.num_steps for run in runs),
        seconds=fmean(run.seconds for run in runs),
        steps_to_target=fmean(steps for steps, _ in reached) if all_reached else None,
        seconds_to_target=fmean(seconds for _, seconds in reached) if all_reached else None,
        num_reached=len(reached),
        policy=tuned.policy.to_dict(),
        unavailable=unavailable,
        runs=tuple(run.without_steps() for run in runs),
    )


def _against(question: Question, row: Row, baseline: Row) -> Row:
    if row.name == baseline.name:
        reasons = {**row.unavailable, **dict.fromkeys(("p_value", "p_value_uncorrected", "interval"), Missing.BASELINE)}
        return replace(row, difference=0.0, unavailable=reasons)
    reason = row.unavailable.get("mean")
    if reason is None and baseline.mean is None:
        is_refused = baseline.unavailable["mean"] is Missing.REFUSED
        reason = Missing.BASELINE_REFUSED if is_refused else Missing.BASELINE_DIVERGED
    if reason is not None:
        missing = ("difference", "p_value", "p_value_uncorrected", "interval")
        return replace(row, unavailable={**row.unavailable, **dict.fromkeys(missing, reason)})
    pairs = [
        (own, other)
        for own, other in zip(row.values, baseline.values, strict=True)
        if own is not None and other is not None
    ]
    differences = [own - other for own, other in pairs]
    interval = statistics.t_interval(differences, level=1.0 - question.alpha)
    unavailable = dict(row.unavailable) if interval is not None else {**row.unavailable, "interval": Missing.ONE_SEED}
    return replace(
        row,
        difference=fmean(differences),
        interval=interval,
        p_value_uncorrected=statistics.paired_p_value(*zip(*pairs, strict=True), seed=question.seed),
        unavailable=unavailable,
    )
