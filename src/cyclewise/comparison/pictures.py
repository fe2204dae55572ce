"""What a comparison looks like: differences with their intervals, one small picture per policy, tables."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from cyclewise.comparison.comparison import Comparison
from cyclewise.comparison.rows import Missing, Row, reasons, signed
from cyclewise.comparison.runs import LOSS_NAMES
from cyclewise.drawing import Chart, Line, Mark, Section, Table

_STEPS_LABEL = "step (optimizer updates)"


def section(comparison: Comparison) -> Section:
    """Return the page of a comparison."""
    return Section(
        title="Comparison of policies",
        conclusion=conclusion(comparison),
        charts=charts(comparison),
        tables=[table(comparison), *_effort(comparison), _by_seed(comparison)],
        settings=dict(comparison.settings),
    )


def conclusion(comparison: Comparison) -> str:
    """Return who is better and worse by how much, and why no more can be said."""
    question = comparison.question
    others = [row for row in comparison.rows if row.name != question.baseline]
    baseline = comparison.row(question.baseline)
    start = f"{question.baseline} has {question.metric} {_number(baseline.mean)}" + (
        f" ± {baseline.std_error:.2g}" if baseline.std_error is not None else ""
    )
    start += f" ({question.direction} is better)"
    without = f"{question.baseline}: {baseline.verdict}"
    num_seeds = f"{comparison.num_seeds} seed{'' if comparison.num_seeds == 1 else 's'}"
    sentences = [f"Over {num_seeds}, {start if baseline.mean is not None else without}"]
    if comparison.too_few_seeds:
        sentences.append(comparison.too_few_seeds[0].upper() + comparison.too_few_seeds[1:])
        verdicts = [(row.name, row.verdict.removesuffix(f"; {comparison.too_few_seeds}")) for row in others]
    else:
        verdicts = [(row.name, row.verdict) for row in others]
    sentences += [f"{name}: {words}" for name, words in verdicts]
    if question.is_direction_assumed:
        sentences.append(
            f"Whether {question.metric} is to rise or to fall, its name does not tell; to rise was assumed, "
            "lower_is_better=True says otherwise"
        )
    refused = [row for row in comparison.rows if row.unavailable.get("mean") is Missing.REFUSED]
    remedies = dict.fromkeys(refusal.remedy for row in refused for refusal in row.refusals)
    sentences += [f"What to do: {remedy}" for remedy in remedies]
    if not comparison.is_paired:
        sentences.append(
            "Runs of one seed did not begin with the same weights and batches, which makes the differences noisier"
        )
    return ". ".join(sentences) + "."


def charts(comparison: Comparison) -> list[Chart]:
    """Describe the pictures: differences first, then each policy's course beside the baseline's; why, if none is."""
    question = comparison.question
    result = _differences(comparison)
    baseline = comparison.row(comparison.question.baseline)
    lower_is_better = {question.metric: question.lower_is_better}
    if question.metric not in LOSS_NAMES:
        lower_is_better["loss"] = True
    for score, is_lower in lower_is_better.items():
        limits = _limits(comparison.rows, score, lower_is_better=is_lower)
        result += [
            _course(row, baseline, score, limits)
            for row in comparison.rows
            if any(math.isfinite(value) for value in mean_course(row, score)[1])
        ]
    return result or [_nothing(comparison)]


def table(comparison: Comparison) -> Table:
    """Return the numbers of each policy."""
    metric = comparison.question.metric
    has_target = comparison.question.target is not None
    columns = ["policy", "highest rate", metric, "difference", "95 % interval", "p", "steps", "seconds"]
    columns += ["steps to target", "seconds to target"] * has_target
    rows = []
    for row in comparison.rows:
        mean = "" if row.mean is None else _number(row.mean)
        spread = "" if row.std_error is None else f" ± {row.std_error:.2g}"
        interval = "" if row.interval is None else f"{signed(row.interval[0])} to {signed(row.interval[1])}"
        is_baseline = row.name == comparison.question.baseline
        cells = [
            row.name,
            "" if row.lr is None else f"{row.lr:.3g}",
            mean + spread or row.verdict,
            "" if row.difference is None else "0" if is_baseline else signed(row.difference),
            interval,
            "" if row.p_value is None else f"{row.p_value:.3g}",
            f"{row.num_steps:.0f}",
            f"{row.seconds:.3g}",
        ]
        if has_target:
            reached = f"{row.num_reached} of {len(row.values)} reached it"
            cells.append(reached if row.steps_to_target is None else f"{row.steps_to_target:.0f}")
            cells.append("" if row.seconds_to_target is None else f"{row.seconds_to_target:.3g}")
        rows.append(cells)
    target = f" Target: {metric} {_number(comparison.question.target)} at an epoch's end." if has_target else ""
    return Table(
        columns,
        rows,
        caption=f"Mean ± standard error over n={comparison.num_seeds} seeds; difference to "
        f"{comparison.question.baseline}, paired by seed. The interval is Student's, for one comparison; p is that of "
        f"the exact sign-flip test, corrected by Holm for {max(1, len(comparison.rows) - 1)} policies.{target}",
    )


def _effort(comparison: Comparison) -> list[Table]:
    tuned = [row for row in comparison.rows if row.tuning_steps]
    if not tuned:
        return []
    rows = [
        [
            row.name,
            _rate_found(row),
            str(row.tuning_steps),
            f"{row.tuning_seconds:.3g}",
            ", ".join(f"{lr:g}: {_number(score) or 'diverged'}" for lr, score in row.tuning),
        ]
        for row in tuned
    ]
    columns = ["policy", "rate found", "steps spent", "seconds spent", "candidates"]
    return [Table(columns, rows, caption="What finding the rates cost, on other seeds than those compared.")]


def _rate_found(row: Row) -> str:
    if row.tuned_lr is None:
        return f"refused: {reasons(row)}"
    if not row.refusals:
        return f"{row.tuned_lr:.3g}"
    return f"{row.tuned_lr:.3g} (refused on {len(row.refusals)} seed{'s'[: len(row.refusals) - 1]}: {reasons(row)})"


def _by_seed(comparison: Comparison) -> Table:
    rows = [
        [row.name, *(_number(value) or "diverged" for value in row.values)] for row in comparison.rows if row.values
    ]
    seeds = [f"seed {seed}" for seed in comparison.question.seeds]
    return Table(["policy", *seeds], rows, caption=f"{comparison.question.metric} at the end of each run.")


def _differences(comparison: Comparison) -> list[Chart]:
    lines: list[Line] = []
    rows = [row for row in comparison.rows if row.difference is not None and row.name != comparison.question.baseline]
    for i, row in enumerate(rows):
        assert row.difference is not None
        height = len(rows) - i
        if row.interval is not None:
            lines.append(Line(f"{row.name}, interval", list(row.interval), [height, height], role="muted"))
        lines.append(Line(f"{row.name} {signed(row.difference)}", [row.difference], [height], points=True))
    if not lines:
        return []
    return [
        Chart(
            f"Difference to {comparison.question.baseline}",
            f"difference in {comparison.question.metric} ({comparison.question.direction} is better)",
            "policy, the first one on top",
            lines,
            marks=[Mark("no difference", 0.0, role="muted")],
            y_limits=(0.5, len(rows) + 0.5),
            caption="Mean of the paired differences with its 95 % interval; from top to bottom: "
            + ", ".join(row.name for row in rows)
            + ".",
        )
    ]


def _nothing(comparison: Comparison) -> Chart:
    why = "; ".join(f"{row.name}: {row.verdict}" for row in comparison.rows)
    return Chart("No policy to draw", _STEPS_LABEL, comparison.question.metric, [], empty=why)


def _course(row: Row, baseline: Row, score: str, limits: tuple[float, float] | None) -> Chart:
    lines = []
    if len(row.runs) > 1:
        # Two lines for all seeds: a dozen of them is a thicket.
        lines += [Line(f"{name} seed", *_over_seeds(row, score, pick), role="muted")
                  for name, pick in (("lowest", min), ("highest", max))]  # fmt: skip
    if row.name != baseline.name and baseline.runs:
        lines.append(Line(f"{baseline.name}, mean", *mean_course(baseline, score), role="secondary", dashed=True))
    lines.append(Line(f"{row.name}, mean", *mean_course(row, score)))
    label = "validation loss" if score in LOSS_NAMES else f"{score} (validation)"
    return Chart(f"{row.name}: {label}", _STEPS_LABEL, label, lines, y_limits=limits)


def mean_course(row: Row, score: str) -> tuple[list[int], list[float]]:
    """Return the mean over the runs that got so far, at the ends of the epochs; NaN where one is not finite."""
    return _over_seeds(row, score, fmean)


def _over_seeds(row: Row, score: str, pick: Callable[[list[float]], float]) -> tuple[list[int], list[float]]:
    courses = [run.scores(score) for run in row.runs]
    longest = max((steps for steps, _ in courses), key=len, default=[])
    picked = []
    for i in range(len(longest)):
        values = [scores[i] for _, scores in courses if i < len(scores)]
        known = [value for value in values if value is not None]
        picked.append(pick(known) if known and len(known) == len(values) else math.nan)
    return longest, picked


def _limits(rows: Sequence[Row], score: str, *, lower_is_better: bool) -> tuple[float, float] | None:
    """Return one range for all small pictures: where the better nine tenths of all values lie."""
    values = sorted(value for row in rows for run in row.runs for value in run.scores(score)[1] if value is not None)
    if not values:
        return None
    tenth = len(values) // 10
    low, high = (values[0], values[-1 - tenth]) if lower_is_better else (values[tenth], values[-1])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
