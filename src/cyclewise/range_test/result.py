"""The record of a range test: the curve, the suggestion or the refusal, and everything needed to repeat it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cyclewise._validation import one_of, reading_record, shown, whole
from cyclewise.drawing import Section
from cyclewise.errors import SuggestionError
from cyclewise.policies import Constant, OneCycle, Policy
from cyclewise.range_test import readings
from cyclewise.range_test.chart import chart
from cyclewise.range_test.curve import Curve, finite
from cyclewise.range_test.refusal import Refusal, StopReason, explain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 4
# How the rate goes with the batch size.
_POWERS = {
    **dict.fromkeys(("SGD", "VelocitySGD"), 1.0),
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop"), 0.5),
}


_UNCLEAR = (
    "the loss of the last sweep falls by less than its noise between batches, and the rate rests on where the losses "
    "of all sweeps rise; larger batches, accumulation_steps=4 or num_steps=300 show more"
)


@dataclass(frozen=True)
class RangeTest:
    """What a learning-rate range test found.

    Attributes:
        curve: rate and loss of every step of the first sweep, over the whole range.
        close_ups: the same of the slower sweeps after it, from the same start, the last one the slowest; before it may
            come the first steps of sweeps that began too high.
        stop_reason: why the last sweep ended.
        refusal: why there is no rate, with its `remedy`; None where there is one.
        max_lr: peak rate for ``OneCycle(max_lr, total_steps, pct_start=0.25)``, of the fastest group; None when
            refused.
        interval: where the peak may lie, (low, high); None when refused.
        max_lrs: the peak of each parameter group; their ratios are those of the optimizer; None when refused.
        num_steps: updates spent.
        num_evaluations: batches scored without an update.
        improvement: how far the held-out loss fell, in standard errors, as far as was looked: past 5.0 and with a link
            past 5.0 no further; None where it was not measured.
        link: how much lower the held-out loss is with the true targets than with those of other samples, in standard
            deviations; None where targets could not be exchanged.
        related: whether the data alone show that the targets have to do with the inputs; None where it was not asked,
            as the sweeps had shown it, or where the data cannot tell.
        overfit_lr: the peak above which a run learns its samples by heart and ends with a higher held-out loss, as far
            as the last sweep showed it: `max_lr` is no higher; None where it did not.
        settings: the arguments that repeat the test.

    Example:
        >>> result = RangeTest(curve=Curve([], []), stop_reason=StopReason.NOT_STARTED, refusal=Refusal.FROZEN)
        >>> print(result)
        no learning rate: no parameter requires a gradient; 0 steps; not started
        >>> result.max_lr is None
        True
    """

    curve: Curve
    stop_reason: StopReason
    refusal: Refusal | None = None
    max_lr: float | None = None
    interval: tuple[float, float] | None = None
    max_lrs: tuple[float, ...] | None = None
    num_steps: int = 0
    num_evaluations: int = 0
    close_ups: tuple[Curve, ...] = ()
    improvement: float | None = None
    link: float | None = None
    related: bool | None = None
    overfit_lr: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def base_lr(self) -> float | None:
        """Floor for cyclical rates: a tenth of the peak; None when refused."""
        return None if self.max_lr is None else self.max_lr / 10.0

    @property
    def constant_lr(self) -> float | None:
        """Rate to hold constant: a third of the peak, since nothing anneals it; None when refused."""
        return None if self.max_lr is None else self.max_lr / 3.0

    @property
    def is_clear(self) -> bool:
        """Whether the loss of the last sweep falls by more than its noise between batches.

        Where it does not, `max_lr` rests on where the losses of all sweeps rise, and its interval is wider.
        """
        reading = self._slowest().read()
        return reading is not None and reading.falls

    def reading(self, name: str) -> float:
        """Return one named reading of the curve's first valley: a rate.

        Args:
            name: "steepest" (the loss falls fastest), "valley" (geometric middle of the fall), "slide" (the last rate
                with a quarter of the steepest fall) or "minimum" (its lowest point: the edge, too high to train at).

        Raises:
            ArgumentError: there is no such reading.
            SuggestionError: the curve has no fall to read.
        """
        one_of("name", name, tuple(readings.READINGS))
        curve = self._slowest()
        reading = curve.read()
        if reading is None or not reading.falls:
            reason = _UNCLEAR if self.refusal is None else explain(self.refusal)
            raise SuggestionError(f"name must be a reading of a curve that falls, got {name!r}; {reason}")
        return readings.READINGS[name](curve.lr, readings.first_valley(reading))

    def policy(self, total_steps: int) -> OneCycle:
        """Return the one-cycle policy of `total_steps` steps that `max_lr` is meant for, of the fastest group.

        Raises:
            SuggestionError: there is no rate; the message says why and what to do.
            PolicyError: `total_steps` is not a whole number of at least 1.

        Warns:
            UserWarning: the parameter groups have different rates, which one policy for all would make alike.
        """
        if self.max_lr is None:
            raise SuggestionError(explain(self.refusal or Refusal.NO_IMPROVEMENT))
        if len(set(self.max_lrs or ())) > 1:
            warnings.warn(
                f"policy() is that of the fastest group alone, the groups have {self.max_lrs}; "
                f"pass policies({total_steps}) to PolicyLR, one for each group",
                UserWarning,
                stacklevel=2,
            )
        return OneCycle(max_lr=self.max_lr, total_steps=total_steps, pct_start=0.25)

    def policies(self, total_steps: int) -> list[Policy]:
        """Return the one-cycle policies of `total_steps` steps, one for each parameter group, in their ratios.

        A group whose rate is 0 keeps it.

        Raises:
            SuggestionError: there is no rate; the message says why and what to do.
            PolicyError: `total_steps` is not a whole number of at least 1.
        """
        if self.max_lr is None or self.max_lrs is None:
            raise SuggestionError(explain(self.refusal or Refusal.NO_IMPROVEMENT))
        return [
            OneCycle(max_lr=rate, total_steps=total_steps, pct_start=0.25)
            if rate > 0.0
            else Constant(lr=0.0, total_steps=total_steps)
            for rate in self.max_lrs
        ]

    def scaled(self, *, batch_size: int) -> "RangeTest":
        """Return the record with its rates carried over to another batch size, without measuring again.

        Gradient descent: in proportion to the batch size (Goyal et al., arXiv:1706.02677, section 2.1), Adam and its
        kin: to its square root (Malladi et al., arXiv:2205.10287, section 4). Both hold while the noise of the batches
        limits the rate. Curvature does not know the batch, so no rate is raised beyond the lowest point of the last
        sweep's valley, and beyond a factor of 4 in the batch size, or for other optimizers, measure again. `overfit_lr`
        goes along, for a run of as many epochs.

        Args:
            batch_size: samples per optimizer update, accumulation and all ranks included.

        Raises:
            SuggestionError: there is no rate, or the rule does not reach that far: the message says to measure again.
            ArgumentError: `batch_size` is not a whole number of at least 1.
        """
        batch_size = whole("batch_size", batch_size, minimum=1, way_out="pass the samples per update")
        if self.max_lr is None or self.interval is None or self.max_lrs is None:
            raise SuggestionError(explain(self.refusal or Refusal.NO_IMPROVEMENT))
        settings = dict(self.settings)
        # From what was measured, not from what the rule has made of it before.
        measured = settings.setdefault("measured_batch_size", settings.get("batch_size"))
        measured_lr, optimizer = settings.setdefault("measured_max_lr", self.max_lr), str(settings.get("optimizer"))
        power = _POWERS.get(optimizer)
        if measured is None:
            raise SuggestionError(
                f"batch_size must be compared with that of the test, got {shown(batch_size)} after batches that do not "
                "say how many samples they have; measure again with lr_find on batches of that size"
            )
        if power is None or measured > 4 * batch_size or batch_size > 4 * measured:
            raise SuggestionError(
                f"batch_size must be within a factor of 4 of the measured {measured}, with SGD or an optimizer of "
                f"Adam's kind, got {shown(batch_size)} with {optimizer}; measure again with lr_find"
            )
        factor = (batch_size / measured) ** power
        curve = self._slowest()
        valley = readings.first_valley(readings.read(curve.lr, curve.loss))
        limit = readings.minimum(curve.lr, valley) / measured_lr
        max_lr = min(factor, max(1.0, limit)) * measured_lr
        factor = max_lr / self.max_lr
        settings["batch_size"] = batch_size
        return replace(
            self,
            max_lr=max_lr,
            interval=(factor * self.interval[0], factor * self.interval[1]),
            max_lrs=tuple(factor * rate for rate in self.max_lrs),
            overfit_lr=None if self.overfit_lr is None else factor * self.overfit_lr,
            settings=tuple(settings.items()),
        )

    def __str__(self) -> str:
        ending = f"{self.num_steps} step{'' if self.num_steps == 1 else 's'}; {_ended(self.stop_reason)}"
        if self.max_lr is None or self.interval is None or self.base_lr is None:
            return f"no learning rate: {(self.refusal or Refusal.NO_IMPROVEMENT).value}; {ending}"
        low, high = self.interval
        return f"max_lr {self.max_lr:.2g} ({low:.2g} – {high:.2g}), base_lr {self.base_lr:.2g}; {ending}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a loss that is not finite becomes None."""
        return {
            "record": "RangeTest",
            "version": _VERSION,
            "max_lr": self.max_lr,
            "interval": None if self.interval is None else list(self.interval),
            "base_lr": self.base_lr,
            "constant_lr": self.constant_lr,
            "max_lrs": None if self.max_lrs is None else list(self.max_lrs),
            "stop_reason": self.stop_reason.name,
            "refusal": None if self.refusal is None else self.refusal.name,
            "reason": None if self.refusal is None else self.refusal.value,
            "remedy": None if self.refusal is None else self.refusal.remedy,
            "num_steps": self.num_steps,
            "num_evaluations": self.num_evaluations,
            "improvement": finite(self.improvement),
            "link": finite(self.link),
            "related": self.related,
            "overfit_lr": self.overfit_lr,
            "settings": dict(self.settings),
            "curve": self.curve.to_dict(),
            "close_ups": [curve.to_dict() for curve in self.close_ups],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RangeTest":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no range test of this version.
        """
        with reading_record(values, "RangeTest", _VERSION):
            result = cls(
                curve=Curve.from_dict(values["curve"]),
                close_ups=tuple(Curve.from_dict(curve) for curve in values["close_ups"]),
                stop_reason=StopReason[values["stop_reason"]],
                refusal=None if values["refusal"] is None else Refusal[values["refusal"]],
                max_lr=_number(values["max_lr"]),
                interval=_interval(values["interval"]),
                max_lrs=None if values["max_lrs"] is None else tuple(map(float, values["max_lrs"])),
                num_steps=values["num_steps"],
                num_evaluations=values["num_evaluations"],
                improvement=_number(values["improvement"]),
                link=_number(values["link"]),
                related=values["related"],
                overfit_lr=_number(values["overfit_lr"]),
                settings=tuple(values["settings"].items()),
            )
            result._check_parts()
        return result

    def _check_parts(self) -> None:
        if len({part is None for part in (self.max_lr, self.interval, self.max_lrs)}) > 1:
            raise ValueError("max_lr, interval and max_lrs come together")
        if self.max_lr is not None and (self.refusal is not None or len(self._slowest().lr) < readings.FEWEST_POINTS):
            raise ValueError("max_lr comes with a curve and without a refusal")

    def section(self) -> Section:
        """Return this record's part of a report."""
        conclusion = f"{self}."
        if self.refusal is not None:
            conclusion += f" What to do: {self.refusal.remedy}."
        elif self.related:
            conclusion += " The data link the targets to the inputs; what the sweeps learned hardly does."
        if self.max_lr is not None and not self.is_clear:
            conclusion += f" {_UNCLEAR[0].upper()}{_UNCLEAR[1:]}."
        if self.overfit_lr is not None and self.overfit_lr == self.max_lr:
            conclusion += (
                " At a higher rate the samples would be learned by heart: in the last sweep the loss of those that it "
                "had trained on left that of others behind."
            )
        return Section(
            title="Learning-rate range test",
            conclusion=conclusion,
            charts=(chart(self),),
            settings={name: str(value) for name, value in self.settings},
        )

    def plot(self) -> "Figure":
        """Draw loss against rate (log axis), with the suggestion and its interval, as a matplotlib figure."""
        from cyclewise.drawing.figure import draw

        return draw([chart(self)])

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _slowest(self) -> Curve:
        return next(reversed((self.curve, *self.close_ups))).usable()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = map(float, values)
    return low, high


def _ended(reason: StopReason) -> str:
    return reason.value if reason is StopReason.NOT_STARTED else f"stopped: {reason.value}"
