"""The article's three settings as printed, in the readings and variants that its text leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cyclewise.policies import OneCycle

# The article's momentum update is that of VelocitySGD; torch's is what its call would run.
FORMS = ("torch", "velocity")
CHANGING, CONSTANT = (0.95, 0.85), (0.9, 0.9)
_MOMENTA = (CHANGING, CONSTANT, (0.85, 0.95), (0.85, 0.85), (0.95, 0.95))
EXPERIMENTS = (1, 2, 3)


@dataclass(frozen=True)
class Setting:
    """One call of the article: ``fit_one_cycle(cyc_len, max_lr, div_factor, pct_start, moms, wd)``.

    Attributes:
        max_lr: peak rate; the run begins at ``max_lr / div_factor``.
        cyc_len: length in epochs.
        pct_start: fraction of the steps spent rising.
        moms: momentum at the ends and at the peak.
        form: "torch" (``v <- m*v + g; w <- w - lr*v``) or "velocity" (``v <- m*v - lr*g; w <- w + v``).
        div_factor: ``max_lr`` over the first rate.
        wd: weight decay.
    """

    max_lr: float
    cyc_len: int
    pct_start: float
    moms: tuple[float, float] = CHANGING
    form: str = "torch"
    div_factor: float = 10.0
    wd: float = 1e-4

    @property
    def name(self) -> str:
        """What tells it from the others.

        >>> Setting(0.08, 95, 0.1368).name
        'max_lr 0.08, 95 epochs, 14 % rising, momentum 0.95 to 0.85, torch'
        """
        start, peak = self.moms
        momentum = f"{start:g} to {peak:g}" if start != peak else f"{start:g}"
        rising = f"{100 * self.pct_start:.0f} % rising"
        return f"max_lr {self.max_lr:g}, {self.cyc_len} epochs, {rising}, momentum {momentum}, {self.form}"

    def policy(self, steps_per_epoch: int) -> OneCycle:
        """Return what ``fit_one_cycle`` makes of it."""
        return OneCycle(
            max_lr=self.max_lr,
            total_steps=self.cyc_len * steps_per_epoch,
            pct_start=self.pct_start,
            div_factor=self.div_factor,
            max_momentum=self.moms[0],
            base_momentum=self.moms[1],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "moms": list(self.moms)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Setting":
        """Return the setting that :meth:`to_dict` described."""
        return cls(**{**values, "moms": tuple(values["moms"])})


def first(form: str, *, max_lr: float = 0.08, moms: tuple[float, float] = CHANGING) -> Setting:
    """Return experiment 1: its call says ``max_lr=0.08``, its text "from 0.08 to 0.8"."""
    return Setting(max_lr, 95, 0.1368, moms, form)


def second(form: str, *, cyc_len: int = 50) -> Setting:
    """Return experiment 2; "a longer cycle may be needed" is 95 epochs, as in experiment 1."""
    return Setting(0.8, cyc_len, 0.5, form=form)


def settings_of(number: int) -> list[Setting]:
    """Return the settings of experiment 1, 2 or 3, those among them that its claims compare with.

    >>> [len(settings_of(number)) for number in EXPERIMENTS]
    [4, 6, 10]
    """
    if number == 1:
        return [first(form, max_lr=max_lr) for form in FORMS for max_lr in (0.08, 0.8)]
    if number == 2:
        return [one for form in FORMS for one in (second(form), second(form, cyc_len=95), first(form))]
    return [first(form, moms=moms) for form in FORMS for moms in _MOMENTA]
