"""Sweeps of a range test: three, each closer and slower than the one before, all from the same start.

Smith's test (arXiv:1506.01186, section 3.3) raises the rate once over its whole range. So few steps then fall on the
decade that matters that the model has hardly moved before the rate destroys it, and the optimizer's memory carries the
loss several steps past the rate that it belongs to. Here the first sweep only says where the loss is lost, the second
where it was lowest, and the third, with half of the steps, passes that place slowly, as the warm-up of a real run does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cyclewise.mismatch import add_note
from cyclewise.progress import Bar
from cyclewise.range_test import readings
from cyclewise.range_test.beginnings import FEWEST_STEPS_TO_UNLINK, Beginning, LeftBehind, Raised, Unlinked
from cyclewise.range_test.curve import Curve
from cyclewise.range_test.divergence import Divergence
from cyclewise.range_test.first_sweep import lost_at, steps_per_pass
from cyclewise.range_test.looks import CERTAIN_DEVIATIONS, HeldOut, Looks
from cyclewise.range_test.overfitting import Course
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.suggest import USUAL_STEPS
from cyclewise.range_test.trial import Trial
from cyclewise.range_test.visits import Visits

# Decades, about the rate at which an update moves the parameters by their own size.
_FIRST_LOW, _FIRST_HIGH = -5.0, 1.5
# Decades, below the rate that lost the loss.
_SECOND_LOW, _SECOND_HIGH = -3.0, -0.1
# Decades, below the beginning and above the end of the second sweep's valley floor.
_THIRD_LOW, _THIRD_HIGH = -0.9, 0.5
# With momentum a fast sweep spikes long before the loss is lost, and takes the spike for the end of its valley: so
# near, in decades, to the rate that lost the loss the third goes at least, if the first had steps enough to tell.
_THIRD_HIGH_WITH_MOMENTUM = -0.45
_FEWEST_TO_TELL = 19
# Decades, below the end of a second sweep that shows no valley.
_BELOW_END = -1.0
_GUESS = 1e-3
# A batch may have nothing to learn from (all of it masked); so many in a row at the start say that none has.
_MOST_WITHOUT_GRADIENT = 3
# A third sweep that began too high begins anew, so often at most.
_MOST_BEGINNINGS = 3
# Shares of the third sweep after which the held-out batches are looked at.
_LOOKS = (0.35, 0.55, 0.75)
# The same of the second, whose lower rates still know what higher ones have destroyed: dead units, a pretrained body.
_EARLY_LOOKS = (0.35, 0.7)
# So many steps on batches that none before them took tell what a visit leaves.
_FEWEST_NEW_STEPS = 28
# A sweep that sees each sample so often may learn them by heart.
_PASSES_BY_HEART = 2.0


@dataclass(frozen=True)
class Range:
    """What the user said about the rates: bounds that no sweep leaves, None where the test is to find them."""

    start_lr: float | None
    end_lr: float | None
    sweep: str

    def clip(self, low: float, high: float) -> tuple[float, float]:
        """Return the part of [low, high] that may be tried."""
        low = low if self.start_lr is None else min(max(low, self.start_lr), self.end_lr or math.inf)
        high = high if self.end_lr is None else min(max(high, self.start_lr or 0.0), self.end_lr)
        return low, high


@dataclass
class Sweeps:
    """What the sweeps saw.

    Attributes:
        curves: one per sweep, also of those that began too high.
        stop_reasons: why each ended.
        refusal: why no rate could be read, as far as the sweeps themselves say.
        looks: the held-out losses before and on the way.
        gaps: for each step of the last sweep on a batch that it had not trained on: the loss with the targets of other
            samples less the loss with the true ones.
        links: of each step of the last sweep, that gap in standard deviations of the loss with the targets of other
            samples; not a number where it is not known.
        course: the held-out loss all along the last sweep; None where it could not learn samples by heart, or none is
            held out.
        visits: what the updates of the last sweep left of their own batches; None where a run would not see them again.
        has_classes: whether the targets are whole numbers.
        evaluation_noise: standard deviation of a step's loss about itself, its batches being scored again with nothing
            changed; None where it was not asked.
    """

    curves: list[Curve] = field(default_factory=list)
    stop_reasons: list[StopReason] = field(default_factory=list)
    refusal: Refusal | None = None
    looks: Looks = field(default_factory=Looks)
    gaps: list[float] = field(default_factory=list)
    links: list[float] = field(default_factory=list)
    course: Course | None = None
    visits: Visits | None = None
    has_classes: bool = False
    evaluation_noise: float | None = None

    def is_refused(self) -> bool:
        """Return whether the sweeps themselves say that there is no rate."""
        return self.refusal is not None

    def lost_some(self) -> bool:
        """Return whether a sweep ended early: at some rate the loss was lost, or its valley left behind."""
        return any(reason is not StopReason.COMPLETED for reason in self.stop_reasons)

    def highest_rate(self, total_steps: int | None) -> float:
        """Return the highest rate at which a run does not learn its samples by heart; infinity without a sign.

        What the sweep saw of samples that it came by again goes before what is concluded from one visit.
        """
        bounds = [seen.highest_rate(total_steps) for seen in (self.course, self.visits) if seen is not None]
        return next((bound for bound in bounds if math.isfinite(bound)), math.inf)

    def hints(self) -> list[Curve]:
        """Return the usable curves that hint at the rate by where they rise: the first, the second and the last.

        None of a model that knew something at the start (one to be fine-tuned): its loss rises as soon as that is lost.
        """
        start = self.looks.start
        if start is not None and start.link is not None and start.link >= CERTAIN_DEVIATIONS:
            return []
        curves = [curve.usable() for curve in (*self.curves[:-1][:2], self.curves[-1])]
        return [curve for curve in curves if len(curve.lr) >= readings.FEWEST_POINTS]


@dataclass(frozen=True)
class Looking:
    """When to look at the held-out batches on the way through a sweep, and where to write down what was seen.

    Attributes:
        seen: the looks.
        shares: of the sweep after which to look.
        has_enough: whether another look could change nothing.
    """

    seen: list[HeldOut]
    shares: Sequence[float]
    has_enough: Callable[[], bool]

    def is_wanted(self, step: int, num_steps: int) -> bool:
        """Return whether to look before this step of so many."""
        return step in {round(share * num_steps) for share in self.shares} and not self.has_enough()


def shares(num_steps: int) -> tuple[int, int, int]:
    """Return how many of `num_steps` updates each sweep gets; the last gets at least half.

    >>> shares(100), shares(300), shares(20)
    ((20, 28, 52), (35, 60, 205), (8, 0, 12))
    """
    if num_steps < 40:
        first = max(8, round(0.4 * num_steps))
        return first, 0, num_steps - first
    first, second = min(35, round(0.2 * num_steps)), min(60, round(0.28 * num_steps))
    return first, second, num_steps - first - second


def sweep_rates(start_lr: float, end_lr: float, num_steps: int, sweep: str) -> list[float]:
    """Return the rate of each step; the first is `start_lr` and the last `end_lr`, exactly.

    >>> sweep_rates(0.01, 1.0, 3, "exponential"), sweep_rates(0.0, 1.0, 3, "linear")
    ([0.01, 0.1, 1.0], [0.0, 0.5, 1.0])
    """
    if sweep == "linear":
        return [float(rate) for rate in np.linspace(start_lr, end_lr, num_steps)]
    return [float(rate) for rate in np.geomspace(start_lr, end_lr, num_steps)]


def run_sweeps(trial: Trial, limits: Range, num_steps: int, bar: Bar, total_steps: int | None = None) -> Sweeps:
    """Run the sweeps, at most `num_steps` updates in all, for a run of `total_steps`."""
    seen = Sweeps(has_classes=trial.has_classes())
    looks = seen.looks
    if trial.is_frozen():
        seen.refusal = Refusal.FROZEN
        return seen
    first, second, last = shares(num_steps)
    if limits.start_lr is None or limits.end_lr is None:
        found = _first_range(trial, limits)
        first = max(1, first - trial.num_updates)
        if isinstance(found, Refusal):
            seen.refusal = found
            return seen
        low, high = found
    else:
        low, high = limits.start_lr, limits.end_lr
    period = trial.reset(steps_per_pass=steps_per_pass(first))
    if trial.held_out:
        looks.start = trial.look()
        if not all(map(math.isfinite, looks.start.losses)):
            seen.refusal = Refusal.NONFINITE_START
            return seen
    _run(trial, sweep_rates(low, high, first, limits.sweep), seen, bar)
    if seen.is_refused():
        return seen
    lost = math.log10(lost_at(seen.curves[-1], period))
    if second:
        low, high = limits.clip(10.0 ** (lost + _SECOND_LOW), 10.0 ** (lost + _SECOND_HIGH))
        trial.reset()
        # Targets that are quantities have a link once their mean is learned, not before.
        trial.compares_targets = seen.has_classes and last >= FEWEST_STEPS_TO_UNLINK
        rates = sweep_rates(low, high, second, "exponential")
        looking = Looking(looks.early, _EARLY_LOOKS, looks.has_enough_early)
        _run(trial, rates, seen, bar, looking=looking, ends_past_valley=True)
        if seen.is_refused():
            return seen
    levels, earlier, links = seen.curves[0].usable().loss[:period].tolist(), seen.curves[-1], trial.links
    low, high = limits.clip(*_last_range(trial, seen, lost, levels, tells=first >= _FEWEST_TO_TELL))
    most_beginnings = _MOST_BEGINNINGS if second else 1
    trial.compares_targets = True
    for beginning in range(1, most_beginnings + 1):
        trial.reset()
        # What the others left over, too.
        rates = sweep_rates(low, high, num_steps - trial.num_updates, "exponential")
        watches: list[Beginning] = []
        if beginning < most_beginnings:
            watches = [Raised(levels, _fall(earlier)), LeftBehind(earlier.lr.tolist(), earlier.loss.tolist())]
            if links:
                watches.append(Unlinked(earlier.lr.tolist(), links, looks=looks.early_links(), num_steps=len(rates)))
        seen.course = _course(trial, len(rates))
        seen.visits = _visits(trial, looks.start, len(rates), total_steps)
        looking = Looking(looks.late, _LOOKS, looks.has_enough_late)
        too_high = _run(trial, rates, seen, bar, looking=looking, watches=watches)
        if too_high is None:
            break
        low, high = limits.clip(*too_high.anew())
    seen.gaps, seen.links = trial.gaps, trial.links
    return seen


def _course(trial: Trial, num_steps: int) -> Course | None:
    # The way of an optimizer that lowers its rate by itself is not that of its rates.
    if not trial.held_out or trial.passes(num_steps) < _PASSES_BY_HEART or trial.traits.sums_squares:
        return None
    return Course(num_steps, divides_by_size=trial.traits.divides_by_size, pace=trial.traits.pace)


def _visits(trial: Trial, start: HeldOut | None, num_steps: int, total_steps: int | None) -> Visits | None:
    # Gradient descent slows down by itself as the samples are learned.
    if start is None or not trial.traits.divides_by_size or trial.traits.sums_squares or trial.steps_in_pass is None:
        return None
    new = trial.num_new_steps(num_steps)
    if new < _FEWEST_NEW_STEPS or (total_steps or USUAL_STEPS) <= trial.steps_in_pass:
        return None
    # Batches of another loader may have a loss of another size.
    own = None if trial.scores_first_held_out else start.losses
    return Visits(new, start=own, steps_in_pass=trial.steps_in_pass, pace=trial.traits.pace)


def _last_range(
    trial: Trial, seen: Sweeps, lost: float, levels: Sequence[float], *, tells: bool
) -> tuple[float, float]:
    """Return the rates that the last sweep is to pass.

    Args:
        trial: what is swept.
        seen: the sweeps before it.
        lost: decade of the rate at which the first lost the loss.
        levels: losses of the first batches before any training, in order.
        tells: whether it had steps enough to be believed.
    """
    first = seen.curves[0]
    if len(seen.curves) == 1:
        return 10.0 ** (lost - 0.8 + _THIRD_LOW), 10.0 ** (lost - 0.8 + _THIRD_HIGH)
    second = seen.curves[1].usable()
    spike = readings.spike(second.loss, levels=levels)
    floor_low, floor_high = _floor(Curve(second.lr[:spike], second.loss[:spike]), is_cut=spike is not None)
    low, high = floor_low * 10.0**_THIRD_LOW, floor_high * 10.0**_THIRD_HIGH
    is_lost = seen.stop_reasons[0] is not StopReason.COMPLETED or 10.0**lost < first.lr[-1]
    if spike is not None:
        high = float(second.lr[spike])
    elif tells and is_lost and trial.traits.has_momentum:
        high = max(high, 10.0 ** (lost + _THIRD_HIGH_WITH_MOMENTUM))
    return low, high


def _first_range(trial: Trial, limits: Range) -> tuple[float, float] | Refusal:
    rate = limits.start_lr or _GUESS
    for attempt in range(5):
        trial.reset()
        unit = trial.unit_rate(rate)
        if attempt == 0 and unit == 0.0 and not trial.has_zero_gradient():
            # Some only look at the gradients in their first step.
            unit = trial.unit_rate(rate)
        if math.isfinite(unit) and (unit > 0.0 or trial.has_zero_gradient()):
            break
        # It broke the model; or it moved nothing by more than rounding, where gradients are very small.
        rate = 1e-4 * rate if math.isinf(unit) else max(1e4 * rate, _GUESS)
    for _ in range(_MOST_WITHOUT_GRADIENT - 1):
        if math.isinf(unit) or not trial.has_zero_gradient():
            break
        unit = trial.unit_rate(rate)
    if math.isinf(unit):
        return Refusal.NONFINITE_START
    if unit == 0.0 or trial.has_zero_gradient():
        return Refusal.ZERO_GRADIENT
    low, high = unit * 10.0**_FIRST_LOW, unit * 10.0**_FIRST_HIGH
    if limits.start_lr is not None:
        return limits.start_lr, max(high, 1e3 * limits.start_lr)
    if limits.end_lr is not None:
        return min(low, 1e-3 * limits.end_lr), limits.end_lr
    return low, high


def _run(
    trial: Trial,
    rates: list[float],
    seen: Sweeps,
    bar: Bar,
    *,
    looking: Looking | None = None,
    ends_past_valley: bool = False,
    watches: Sequence[Beginning] = (),
) -> Beginning | None:
    # What says that the sweep began too high, and so does not count; None where it counts.
    lrs: list[float] = []
    losses: list[float] = []
    watch = Divergence()
    stop_reason = StopReason.COMPLETED
    without_gradient = 0
    for i, rate in enumerate(rates):
        if looking is not None and trial.held_out and looking.is_wanted(i, len(rates)):
            looking.seen.append(trial.look(rate))
        try:
            loss = trial.train(rate)
        except Exception as error:
            # What is the matter with the very first step is not the rate.
            if i:
                add_note(
                    error, f"raised at step {i} of a sweep, lr={rate:.2g}; where it is the rate's doing, pass end_lr="
                )
            raise
        lrs.append(rate)
        losses.append(loss)
        if seen.course is not None:
            seen.course.update(rate, trial.training_loss, trial.score)
        if seen.visits is not None:
            seen.visits.update(rate, trial.training_loss, trial.score_steps)
        if bar.is_shown:
            bar.move_to(trial.num_updates, f"lr {rate:.2g}  loss {loss:.4g}")
        link = trial.links[-1] if trial.links else math.nan
        too_high = [watch for watch in watches if watch.update(rate, loss, link)]
        if too_high:
            seen.curves.append(Curve(np.array(lrs), np.array(losses)))
            seen.stop_reasons.append(StopReason.DIVERGED)
            return too_high[0]
        if not math.isfinite(loss):
            losses[-1] = math.nan
            stop_reason = StopReason.NONFINITE
            break
        if i == without_gradient < _MOST_WITHOUT_GRADIENT and trial.has_zero_gradient():
            without_gradient += 1
            if without_gradient == min(_MOST_WITHOUT_GRADIENT, len(rates)):
                seen.refusal = Refusal.ZERO_GRADIENT
                break
        if watch.update(loss) or (ends_past_valley and readings.is_past_valley(np.array(lrs), np.array(losses))):
            stop_reason = StopReason.DIVERGED
            break
    if seen.course is not None:
        seen.course.close(trial.score)
    seen.curves.append(Curve(np.array(lrs), np.array(losses)))
    seen.stop_reasons.append(stop_reason)
    if stop_reason is StopReason.NONFINITE:
        step = len(lrs) - 1
        if step == 0 or not trial.is_finite_at_start(step, may_update=step < len(rates) - 1):
            seen.refusal = Refusal.NONFINITE_START
    return None


def _fall(curve: Curve) -> float:
    reading = curve.read()
    return 0.0 if reading is None else reading.start - float(reading.smooth[reading.lowest])


def _floor(curve: Curve, *, is_cut: bool) -> tuple[float, float]:
    reading = curve.read()
    if reading is None and not is_cut:
        return float(curve.lr[0]), float(curve.lr[0])
    if reading is None or not reading.falls:
        # A valley shallower than the noise between batches: all that is seen is where the loss is lost.
        below = float(curve.lr[-1]) * 10.0**_BELOW_END
        return below, below
    return readings.floor(curve.lr, reading)
