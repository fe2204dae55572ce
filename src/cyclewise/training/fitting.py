"""The article's calls: one-cycle, SGDR and cyclical rates in epochs, and the ensemble of their snapshots."""

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch.optim import Optimizer

from cyclewise._validation import positive, real, shown, whole
from cyclewise.errors import ArgumentError, PolicyError, SuggestionError
from cyclewise.policies import SGDR, Cyclical, OneCycle, Policy
from cyclewise.policies.checks import MOST_STEPS
from cyclewise.range_test import RangeTest
from cyclewise.training.callbacks import Callback
from cyclewise.training.ensemble import Ensemble
from cyclewise.training.groups import spread
from cyclewise.training.history import History
from cyclewise.training.parts import Parts
from cyclewise.training.snapshots import Snapshots

MaxLR = float | Sequence[float] | slice | None


class FitMethods(Parts):
    """What a Learner can be asked for in epochs; everything ends in :meth:`Learner.fit`."""

    def fit_one_cycle(
        self,
        cyc_len: float,
        max_lr: MaxLR = None,
        *,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        pct_start: float = 0.3,
        moms: tuple[float, float] | None = (0.95, 0.85),
        wd: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train with one cycle: the rate up and then far down, the momentum against it.

        The momentum is torch's, ``v <- mu*v + g; w <- w - lr*v``. For the article's ``v <- mu*v - lr*g; w <- w + v``
        make the Learner with ``optimizer=cw.VelocitySGD``: the two differ while the rate moves. Afterwards the
        optimizer keeps the last rate and momentum.

        Args:
            cyc_len: length of the cycle in epochs.
            max_lr: peak rate; a list of one per layer group; ``slice(low, high)``, geometric between the groups; None
                takes the one that the last `lr_find` gave.
            div_factor: the rate starts at ``max_lr / div_factor``.
            final_div_factor: and ends at ``max_lr / div_factor / final_div_factor``.
            pct_start: fraction of the steps spent rising.
            moms: momentum (or beta1) at the ends and at the peak; None leaves it alone.
            wd: weight decay during this fit, for the groups that have one (for all, if none has); put back afterwards.
            callbacks: hooks, called in order.

        Returns:
            the record of this fit.

        Raises:
            ArgumentError: no `max_lr` is given and there was no `lr_find`, or an argument has an impossible value.
            SuggestionError: no `max_lr` is given and `lr_find` refused to give one.
            DivergedError: the training loss stopped being finite.

        Warns:
            UserWarning: `max_lr` is that of an `lr_find` without momentum, and `moms` brings one in.

        Source: Smith, arXiv:1803.09820, section 4; the anneal and the arguments are fastai's.
        """
        total_steps = self.steps_in("cyc_len", cyc_len)
        momenta = _momenta(moms)
        if max_lr is None and momenta != (None, None):
            _warn_of_new_momentum(self.optimizer, momenta)
        policies = [
            OneCycle(
                max_lr=rate,
                total_steps=total_steps,
                pct_start=pct_start,
                div_factor=div_factor,
                final_div_factor=final_div_factor,
                base_momentum=momenta[1],
                max_momentum=momenta[0],
            )
            for rate in peaks(max_lr, self.range_test, len(self.optimizer.param_groups))
        ]
        return self.fit(_one_or_all(policies), callbacks=callbacks, wd=wd)

    def fit_sgdr(
        self,
        *,
        T_0: float,
        T_mult: float = 1,
        num_cycles: int,
        max_lr: MaxLR = None,
        min_lr: float = 0.0,
        peak_decay: float = 1.0,
        snapshots: bool | str | os.PathLike[str] = False,
        wd: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train with cosine annealing and warm restarts.

        Args:
            T_0: length of the first cycle in epochs, rounded to whole updates before it is multiplied.
            T_mult: growth of the cycles, at least 1.
            num_cycles: number of cycles.
            max_lr: peak of the first cycle, as in :meth:`fit_one_cycle`.
            min_lr: what each cycle anneals towards.
            peak_decay: what the peak is multiplied by at each restart.
            snapshots: keep the weights at the end of each cycle for :meth:`ensemble`, in memory, or in the folder that
                a path names.
            wd: weight decay during this fit.
            callbacks: hooks, called in order.

        Returns:
            the record of this fit.

        Raises:
            ArgumentError: no `max_lr` is given and there was no `lr_find`, or an argument has an impossible value.
            SuggestionError: no `max_lr` is given and `lr_find` refused to give one.
            DivergedError: the training loss stopped being finite.

        Source: Loshchilov and Hutter, arXiv:1608.03983; snapshots: Huang et al., arXiv:1704.00109.
        """
        first = self.steps_in("T_0", T_0)
        policies = [
            SGDR(max_lr=rate, min_lr=min_lr, T_0=first, T_mult=T_mult, num_cycles=num_cycles, peak_decay=peak_decay)
            for rate in peaks(max_lr, self.range_test, len(self.optimizer.param_groups))
        ]
        kept = None
        if snapshots is not False:
            kept = Snapshots(policies[0].cycle_ends, directory=None if snapshots is True else snapshots)
            callbacks = [kept, *callbacks]
            self.snapshots = kept
        return self.fit(_one_or_all(policies), callbacks=callbacks, wd=wd)

    def fit_cyclical(
        self,
        *,
        cyc_len: float,
        num_cycles: int,
        max_lr: MaxLR = None,
        base_lr: float | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        moms: tuple[float, float] | None = None,
        wd: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train with rates that rise and fall between two bounds.

        Args:
            cyc_len: length of a cycle, up and down, in epochs, rounded to whole updates; all cycles have the same.
            num_cycles: number of cycles.
            max_lr: upper bound, as in :meth:`fit_one_cycle`.
            base_lr: lower bound of the fastest group; None: a tenth of the upper one.
            mode: "triangular", "triangular2" (the amplitude halves every cycle) or "exp_range" (times ``gamma**step``).
            gamma: of "exp_range", per step.
            moms: momentum at the lower and at the upper bound; None leaves it alone.
            wd: weight decay during this fit.
            callbacks: hooks, called in order.

        Returns:
            the record of this fit.

        Raises:
            ArgumentError: no `max_lr` is given and there was no `lr_find`, or an argument has an impossible value.
            SuggestionError: no `max_lr` is given and `lr_find` refused to give one.
            DivergedError: the training loss stopped being finite.

        Source: Smith, arXiv:1506.01186, section 3.
        """
        cycle = max(2, self.steps_in("cyc_len", cyc_len))
        count = whole("num_cycles", num_cycles, minimum=1, way_out="it counts the cycles")
        if cycle * count > MOST_STEPS:
            raise ArgumentError(
                f"num_cycles must leave at most 2**53 steps in all, got {shown(num_cycles)} of {cycle} each; "
                "ask for fewer"
            )
        momenta = _momenta(moms)
        rates = peaks(max_lr, self.range_test, len(self.optimizer.param_groups))
        share = 0.1 if base_lr is None else positive("base_lr", base_lr, way_out="leave it out") / max(rates)
        policies = [
            Cyclical(base_lr=share * rate, max_lr=rate, step_size_up=cycle // 2, step_size_down=cycle - cycle // 2,
                     mode=mode, gamma=gamma, max_momentum=momenta[0], base_momentum=momenta[1],
                     total_steps=cycle * count)
            for rate in rates
        ]  # fmt: skip
        return self.fit(_one_or_all(policies), callbacks=callbacks, wd=wd)

    def ensemble(self) -> Ensemble:
        """Return the ensemble of the snapshots that the last ``fit_sgdr(..., snapshots=True)`` kept.

        Raises:
            ArgumentError: there are none.
        """
        if self.snapshots is None or not len(self.snapshots.states):
            raise ArgumentError(
                "ensemble() needs snapshots, got none; call learn.fit_sgdr(..., snapshots=True), or pass "
                "callbacks=[cw.Snapshots(policy.cycle_ends)] to a fit and make the cw.Ensemble yourself"
            )
        return Ensemble(self.model, self.snapshots.states, self.data, loss_fn=self.loss_fn, metrics=self.metrics,
                        takes_dicts=True, progress=self.progress)  # fmt: skip


def steps_in_epochs(name: str, epochs: float, steps_per_epoch: int) -> int:
    """Return the updates in so many epochs, at least 1; `name` is the argument's in a message.

    Raises:
        ArgumentError: `epochs` is not above 0, or so many that their steps cannot be counted.
    """
    count = positive(name, epochs, way_out="it counts epochs, for example 5")
    steps = count * steps_per_epoch
    if steps > MOST_STEPS:
        raise ArgumentError(
            f"{name} must leave at most 2**53 steps, got {shown(epochs)} epochs of {steps_per_epoch}; "
            "it counts epochs, for example 5"
        )
    return max(1, round(steps))


def peaks(max_lr: MaxLR, range_test: RangeTest | None, num_groups: int) -> list[float]:
    """Return the peak rate of each group: as given, or as the range test found them.

    Raises:
        ArgumentError: nothing is given, and there was no range test, or one of other groups.
        SuggestionError: nothing is given, and the range test refused.
    """
    if max_lr is not None:
        return spread(max_lr, num_groups)
    if range_test is None:
        raise ArgumentError("max_lr must be a rate when no range test was run, got None; call learn.lr_find()")
    if range_test.max_lrs is None:
        range_test.policy(1)  # raises the refusal with its remedy
        raise SuggestionError("there is no learning rate to give")
    # Rates that are alike make one policy, which added groups follow.
    if len(range_test.max_lrs) != num_groups and len(set(range_test.max_lrs)) > 1:
        raise ArgumentError(
            f"max_lr must have one rate per parameter group ({num_groups}), got the {len(range_test.max_lrs)} of the "
            "last lr_find, since the groups changed; call learn.lr_find() again, or pass max_lr="
        )
    return list(range_test.max_lrs)


def _warn_of_new_momentum(optimizer: Optimizer, moms: tuple[Any, Any]) -> None:
    if any(group.get("momentum") == 0 for group in optimizer.param_groups):
        warnings.warn(
            f"max_lr is the rate that lr_find measured without momentum, and moms={moms!r} makes its steps several "
            "times as long; pass moms=None, or give the optimizer momentum=0.9 before lr_find",
            UserWarning,
            stacklevel=3,
        )


def _one_or_all(policies: Sequence[Policy]) -> Policy | Sequence[Policy]:
    return policies[0] if len(set(policies)) == 1 else policies


def _momenta(moms: Any) -> tuple[float | None, float | None]:
    """Return the momenta at the ends and at the peak, checked under the name that the caller knows them by."""
    if moms is None or (isinstance(moms, (tuple, list)) and list(moms) == [None, None]):
        return None, None
    try:
        at_ends, at_peak = [real("moms", momentum, way_out="") for momentum in moms]
    except (TypeError, ValueError):  # as many as there are, of whatever kind: the errors of numbers are ValueErrors
        raise ArgumentError(
            f"moms must be two numbers, got {moms!r}; "
            "pass (momentum at the ends, momentum at the peak), for example (0.95, 0.85)"
        ) from None
    if not (0 <= at_ends < 1 and 0 <= at_peak < 1):
        raise PolicyError(f"moms must lie in [0, 1), got {moms!r}; 0.85 to 0.95 is usual")
    return at_ends, at_peak
