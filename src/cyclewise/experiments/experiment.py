"""The record of one of the article's experiments: its runs as the article draws them, and what became of its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cyclewise._validation import reading_record
from cyclewise.comparison.runs import Run
from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.experiments import claims
from cyclewise.experiments.claims import Claim, Histories
from cyclewise.experiments.settings import CHANGING, CONSTANT, Setting, first, second, settings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 1
_STEPS_LABEL = "step (optimizer updates)"


@dataclass(frozen=True, eq=False)
class Experiment:
    """One of the article's experiments.

    Attributes:
        number: 1, 2 or 3.
        runs: setting -> its runs, one per seed.
        seeds: the seeds.
        setting: what is needed to repeat it.
    """

    number: int
    runs: Mapping[Setting, tuple[Run, ...]]
    seeds: tuple[int, ...]
    setting: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.number, self.seeds, *self.runs))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the article says of this experiment, and whether it was seen."""
        return tuple(_CLAIMS[self.number](self))

    def histories(self, setting: Setting) -> Histories:
        """Return what happened in the runs of a setting; None for one that diverged."""
        return [None if run.final("loss") is None else run.history for run in self.runs[setting]]

    def __str__(self) -> str:
        judged = self.claims
        seen = sum(claim.seen is True for claim in judged)
        return f"experiment {self.number}: {seen} of {len(judged)} claims seen, n={len(self.seeds)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "record": "Experiment",
            "version": _VERSION,
            "number": self.number,
            "runs": [
                {"setting": setting.to_dict(), "runs": [run.to_dict() for run in runs]}
                for setting, runs in self.runs.items()
            ],
            "seeds": list(self.seeds),
            "setting": dict(self.setting),
            "claims": [claim.to_dict() for claim in self.claims],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Experiment":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no experiment of this version.
        """
        with reading_record(values, "Experiment", _VERSION):
            runs = {
                Setting.from_dict(item["setting"]): tuple(Run.from_dict(run) for run in item["runs"])
                for item in values["runs"]
            }
            return cls(values["number"], runs, tuple(values["seeds"]), dict(values["setting"]))

    def charts(self) -> list[Chart]:
        """Describe the pictures: for each setting both losses, and rate and momentum where they differ."""
        result = []
        drawn: set[tuple[object, ...]] = set()
        for setting, runs in self.runs.items():
            result.append(_losses(setting, runs))
            shape = (setting.max_lr, setting.cyc_len, setting.pct_start, setting.moms)
            if shape not in drawn and runs[0].history.num_steps:
                drawn.add(shape)
                result += _rate_and_momentum(setting, runs[0])
        return result

    def section(self) -> Section:
        """Return this record's part of a report: what was seen and what was not, then pictures and tables."""
        return Section(
            title=f"The article's experiment {self.number}",
            conclusion=" ".join(_tally(statement, own) for statement, own in _by_statement(self.claims).items()),
            charts=self.charts(),
            tables=[self._claims_table(), self._runs_table()],
            settings=dict(self.setting),
        )

    def plot(self) -> "Figure":
        """Draw the pictures as one matplotlib figure."""
        from cyclewise.drawing.figure import draw

        return draw(self.charts())

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _claims_table(self) -> Table:
        rows = [[c.statement, c.subject, c.outcome, c.numbers, c.criterion] for c in self.claims]
        return Table(["claim", "setting", "outcome", "numbers", "criterion"], rows,
                     caption=f"Means over n={len(self.seeds)} seeds {list(self.seeds)}.")  # fmt: skip

    def _runs_table(self) -> Table:
        rows = []
        for setting, runs in self.runs.items():
            ends = [run.history.epochs[-1] for run in runs if run.final("loss") is not None]
            cells = [f"{len(runs) - len(ends)} of {len(runs)} diverged", "", "", ""]
            if len(ends) == len(runs):
                cells = [
                    f"{100 * fmean(end.metrics['accuracy'] for end in ends):.2f}",
                    f"{fmean(end.train_loss for end in ends):.4f}",
                    f"{fmean(run.final('loss') or 0.0 for run in runs):.4f}",
                    f"{fmean(run.seconds for run in runs):.1f}",
                ]
            rows.append([setting.name, *cells])
        columns = ["setting", "accuracy (%)", "training loss", "validation loss", "seconds"]
        return Table(columns, rows, caption=f"At the end; means over n={len(self.seeds)} seeds.")


def _by_statement(judged: Sequence[Claim]) -> dict[str, list[Claim]]:
    result: dict[str, list[Claim]] = {}
    for claim in judged:
        result.setdefault(claim.statement, []).append(claim)
    return result


def _tally(statement: str, judged: Sequence[Claim]) -> str:
    """Return in how many settings a claim was seen, and the numbers of the first in which it was not."""
    missed = [claim for claim in judged if not claim.seen]
    if not missed:
        return f"{statement}: seen in all {len(judged)} cases."
    first_missed = missed[0]
    example = f"{first_missed.subject}: {first_missed.numbers}" if first_missed.seen is False else first_missed.subject
    return f"{statement}: {first_missed.outcome} in {len(missed)} of {len(judged)} cases ({example})."


def _losses(setting: Setting, runs: tuple[Run, ...]) -> Chart:
    history = runs[0].history
    steps = [epoch.step for epoch in history.epochs]
    train = Line("training", steps, [epoch.train_loss for epoch in history.epochs], role="secondary", dashed=True)
    valid = [float("nan") if epoch.valid_loss is None else epoch.valid_loss for epoch in history.epochs]
    return Chart(
        f"Loss: {setting.name}",
        _STEPS_LABEL,
        "loss (log scale)",
        [train, Line("validation", steps, valid)],
        y_log=True,
        caption=f"Means of the epochs, seed {runs[0].seed}.",
    )


def _rate_and_momentum(setting: Setting, run: Run) -> list[Chart]:
    history = run.history
    # Every so many steps: the curves are smooth, and a page holds many of them.
    stride = max(1, history.num_steps // 500)
    steps = list(range(0, history.num_steps, stride))
    what = setting.name.rpartition(",")[0]
    return [
        Chart(f"{title}: {what}", _STEPS_LABEL, title.lower(), [Line(title.lower(), steps, values[::stride].tolist())])
        for title, values in (("Learning rate", history.lr), ("Momentum", history.momentum))
    ]


def _forms(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(setting.form for setting in experiment.runs))


def _first_claims(experiment: Experiment) -> list[Claim]:
    return [
        judge(setting.name, experiment.histories(setting))
        for setting in settings_of(1)
        for judge in (claims.unstable_in_the_middle, claims.falls_at_the_end, claims.small_gap)
    ]


def _second_claims(experiment: Experiment) -> list[Claim]:
    result = []
    for form in _forms(experiment):
        short, long, lower = (
            experiment.histories(setting) for setting in (second(form), second(form, cyc_len=95), first(form))
        )
        result += [
            claims.higher_and_shorter(f"0.8 for 50 epochs against 0.08 for 95, {form}", short, lower),
            claims.longer_for_the_loss(f"0.8 for 95 epochs against 50, {form}", long, short),
        ]
    return result


def _third_claims(experiment: Experiment) -> list[Claim]:
    result = []
    for form in _forms(experiment):
        constant, changing = (experiment.histories(first(form, moms=moms)) for moms in (CONSTANT, CHANGING))
        subject = f"0.9 against 0.95 to 0.85, {form}"
        result += [judge(subject, constant, changing) for judge in
                   (claims.near_in_accuracy, claims.larger_loss, claims.less_time)]  # fmt: skip
        others = [
            experiment.histories(setting)
            for setting in settings_of(3)
            if setting.form == form and setting.moms != CHANGING
        ]
        result.append(claims.lowering_helps(f"0.95 to 0.85 against all others, {form}", changing, others))
    return result


_CLAIMS = {1: _first_claims, 2: _second_claims, 3: _third_claims}
