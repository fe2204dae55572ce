"""Watching a training run: cheap numbers every few steps, curvature every few hundred, for a counted share of the time.

What is due at which step depends on nothing but the count, never on the clock, so the same run is measured at the same
steps on every machine, and all ranks of a distributed run measure together. A measurement leaves no trace: weights,
gradients, buffers and generators have the bits they had, and the run ends with those of one that is not watched.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise._validation import positive, whole
from cyclewise.errors import ArgumentError
from cyclewise.landscape.culprit import NotTwiceError
from cyclewise.landscape.halves import NoPartsError, step_noise
from cyclewise.landscape.lengths import norm_of, relative_change
from cyclewise.landscape.limits import felt_by, sharpness_limit
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.parts import batch_size
from cyclewise.landscape.positions import Positions
from cyclewise.landscape.tracking import track
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.landscape.watched import Rows, Watched
from cyclewise.param_groups import read_rates
from cyclewise.ranks import is_distributed, mean_over_ranks
from cyclewise.state import preserve
from cyclewise.stepping import LossFunction, Step, needs_closure

_log = logging.getLogger("cyclewise")

# In updates of the run, for a perceptron of 0.5 ms an update, the worst case: what does not grow with the model
# (walking over it to preserve it, calling kernels) weighs most there. benchmarks/watch.py measures about 0.6 of these
# where one measurement follows the other; one in a thousand steps finds nothing of its own in the processor's caches.
_NOISE_COST = 6.0
_SHARPNESS_COST = 18.0
_PRODUCT_COST = 3.0
# Of `most_fraction`; the rest is for the norms (0.7 updates) and for noticing that nothing is due.
_NOISE_SHARE, _SHARPNESS_SHARE = 0.1, 0.3
Interval = int | Literal["auto"] | None
_Self = TypeVar("_Self", bound="LoopWatch")


class _Attached(NamedTuple):
    step: Step
    scaler: Any
    remove_hook: Callable[[], None]
    may_repeat: bool


class LoopWatch:
    """Record gradient norm, update ratio, gradient noise scale and sharpness while a model is trained.

    Call :meth:`step` once per optimizer update, when its gradients are complete and nothing has been done to them yet:
    after the (last) backward pass, before clipping and ``optimizer.step()``. It then sees the weights, the rate and the
    gradient of one and the same step.

    The public name is :class:`cyclewise.Watch`, a watch and a callback in one; it documents the arguments.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> watch = LoopWatch(every=1, sharpness_every=5).start(model, optimizer, nn.functional.mse_loss)
        >>> for _ in range(10):
        ...     batch = torch.randn(8, 4), torch.randn(8, 1)
        ...     optimizer.zero_grad()
        ...     nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
        ...     watch.step(batch)
        ...     optimizer.step()
        >>> watch.record.step.tolist(), watch.record.sharpness.round(1).tolist()[4]
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3.0)
    """

    _num_steps: int
    _num_samples: int | None
    _rows: Rows
    _direction: Tensor | None
    _unavailable: dict[str, Unavailable]
    _details: dict[str, str]
    _has_seen: bool
    _num_unseen: int
    # The row of the update that comes, and the weights before it.
    _open: dict[str, Any] | None
    _before: list[Tensor]

    def __init__(
        self,
        *,
        every: int = 50,
        noise_every: Interval = "auto",
        sharpness_every: Interval = "auto",
        num_products: int = 9,
        most_fraction: float = 0.05,
        num_positions: int = 16,
    ) -> None:
        self.every = whole("every", every, minimum=1, way_out="50 measures at every 50th step")
        self.noise_every = _interval("noise_every", noise_every)
        self.sharpness_every = _interval("sharpness_every", sharpness_every)
        self.num_products = whole("num_products", num_products, minimum=2, way_out="9 is a good number")
        self.most_fraction = positive("most_fraction", most_fraction, way_out="0.05 allows 5 % of the time")
        self.num_positions = whole("num_positions", num_positions, minimum=0, way_out="16 is a good number, 0 is none")
        intervals = {
            "norms": self.every,
            "noise": self._interval(self.noise_every, _NOISE_COST, _NOISE_SHARE),
            "sharpness": self._interval(
                self.sharpness_every, _SHARPNESS_COST + _PRODUCT_COST * self.num_products, _SHARPNESS_SHARE
            ),
        }
        self._intervals = {name: every for name, every in intervals.items() if every is not None}
        self._attached: _Attached | None = None
        self._forget()

    # -- in the loop ------------------------------------------------------------------------------------------------

    def start(
        self: _Self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction | None,
        *,
        scaler: "torch.amp.GradScaler | None" = None,
        autocast_dtype: torch.dtype | None = None,
    ) -> _Self:
        """Watch this model from now on; a record that was begun goes on.

        Args:
            model: the model; what DistributedDataParallel or ``torch.compile`` made of it is looked through.
            optimizer: the optimizer whose updates are watched.
            loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``, a mean over the samples; None takes
                ``output.loss`` for dict batches.
            scaler: the gradient scaler of float16, where the gradients that :meth:`step` sees are still scaled.
            autocast_dtype: what the loop runs forward and loss in; curvature is measured in full precision.

        Returns:
            this object.

        Raises:
            ArgumentError: it is watching already.
            ArgumentTypeError: `model` is no module, `optimizer` no optimizer, or `loss_fn` cannot be called.
        """
        if self._attached is not None:
            raise ArgumentError("start() must not be called on a watch that is watching; call stop() first")
        step = Step(plain(model), optimizer, loss_fn, autocast_dtype=autocast_dtype, scaler=scaler)
        handle = optimizer.register_step_post_hook(self._on_update)
        self._attached = _Attached(step, step.scaler, handle.remove, needs_closure(optimizer))
        self._wait()
        return self

    def stop(self) -> None:
        """Stop watching and let go of the model; the record stays."""
        if self._attached is not None:
            self._attached.remove_hook()
        self._attached = None
        self._wait()

    def step(self, *batches: Any) -> None:
        """Measure what is due at the update that comes; call it right after its last backward pass.

        Args:
            batches: the batches that the gradient comes from: one, or as many as were accumulated. Without them only
                norms can be measured.

        Raises:
            ArgumentError: the watch was not started, the gradients are missing, or the call stands at another place.
        """
        attached = self._attached
        if attached is None:
            raise ArgumentError("step() needs a model to watch, got none; call start(model, optimizer, loss_fn) first")
        if self._has_seen:
            if attached.may_repeat:
                return
            if attached.scaler is None:
                raise ArgumentError(
                    "step() must be called once per optimizer.step(), got a second call without one in between; "
                    "call it after the last backward pass of an update, not after each"
                )
        if self._num_unseen:
            raise ArgumentError(
                f"step() must be called before every optimizer.step(), got {self._num_unseen} update(s) without it; "
                "put it between loss.backward() and optimizer.step(), and stop() the watch while anything else updates"
            )
        self._has_seen, self._open, self._before = True, None, []
        number = self._num_steps + 1
        due = [name for name, interval in self._intervals.items() if number % interval == 0]
        if due or not self._num_steps:
            self._measure(attached, batches, due)

    def _on_update(self, *_: Any) -> None:
        if not self._has_seen:
            self._num_unseen += 1
            return
        self._has_seen = False
        self._num_steps += 1
        if self._attached is not None:
            self._positions.note(self._attached.step.model)
        row, self._open = self._open, None
        if row is not None:
            if self._before:
                row["update_ratio"] = relative_change(self._weights(), self._before)
                self._before = []
            self._rows.add(row)

    # -- measuring --------------------------------------------------------------------------------------------------

    def _measure(self, attached: _Attached, batches: Sequence[Any], due: Sequence[str]) -> None:
        optimizer, scaler = attached.step.optimizer, attached.scaler
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise ArgumentError(
                "step() must be called while the parameters have their gradients, got none; "
                "put it between loss.backward() and optimizer.step()"
            )
        if not due:
            return
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        row: dict[str, Any] = {"step": self._num_steps, "lr": max(read_rates(optimizer))}
        with torch.no_grad():
            norm = norm_of(gradients)
            row["gradient_norm"] = norm if scale == 1.0 else norm / scale
            if "norms" in due:
                self._before = [weight.clone() for weight in self._weights()]
        limit = sharpness_limit(optimizer)
        row["sharpness_limit"] = math.nan if limit is None else limit
        if "noise" in due:
            self._count(batches)
            self._measure_noise(attached.step, batches, scale, row)
        if "sharpness" in due:
            self._measure_sharpness(attached.step, batches, row)
        self._open = row

    def _measure_noise(self, step: Step, batches: Sequence[Any], scale: float, row: dict[str, Any]) -> None:
        parameters = [p for p in step.model.parameters() if p.requires_grad]
        try:
            noise = step_noise(step, batches, parameters, scale=scale)
        except NoPartsError as error:
            self._lacks("noise_scale", error.reason, error.detail)
            return
        variance, squared = mean_over_ranks([noise.variance, noise.signal], step.device)
        row["gradient_variance"], row["squared_gradient"] = variance, squared

    def _measure_sharpness(self, step: Step, batches: Sequence[Any], row: dict[str, Any]) -> None:
        if not batches:
            self._lacks("sharpness", Unavailable.NO_BATCH)
            return
        try:
            with preserve(step.model, step.loss_fn), torch.enable_grad():
                objective = Objective(step.model, step.loss_fn, list(batches), freezes_batch_norm=False)
                felt = felt_by(step.optimizer, objective)
                if felt is Unavailable.NO_STATE:  # before the first update: the Hessian itself is another matter
                    return
                found = track(
                    objective,
                    num_products=self.num_products,
                    felt=None if isinstance(felt, Unavailable) else felt,
                    last=self._direction,
                )
        except (RuntimeError, ArgumentError) as error:
            # The user's loss has just been differentiated once, so it is the second derivative that failed: missing,
            # or too much for the device. Other ranks would wait for this one.
            if is_distributed():
                raise
            is_known = isinstance(error, NotTwiceError)
            reason = Unavailable.NOT_TWICE if is_known else Unavailable.NO_CURVATURE_MEASURED
            self._lacks("sharpness", reason, str(error).splitlines()[0])
            return
        if found is not None:
            self._direction = found.direction
            row["sharpness"], row["residual"], row["curvature"] = found.sharpness, found.residual, found.curvature

    def _weights(self) -> list[Tensor]:
        assert self._attached is not None
        groups = self._attached.step.optimizer.param_groups
        return [p.detach() for group in groups for p in group["params"] if p.requires_grad]

    def _count(self, batches: Sequence[Any]) -> None:
        sizes = [batch_size(batch) for batch in batches]
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes):
            num_ranks = torch.distributed.get_world_size() if is_distributed() else 1
            self._num_samples = sum(known) * num_ranks

    def _lacks(self, name: str, reason: Unavailable, detail: str | None = None) -> None:
        if name not in self._unavailable:
            _log.warning("%s is not watched: %s", name, detail or reason)
        self._unavailable[name] = reason
        self._details.pop(name, None)
        if detail is not None:
            self._details[name] = detail

    # -- the record -------------------------------------------------------------------------------------------------

    @property
    def path(self) -> tuple[dict[str, Tensor], ...]:
        """Some of the positions so far, in order, for ``diagnose(..., path=)``; saved in no checkpoint."""
        return self._positions.path

    @property
    def record(self) -> Watched:
        """What was measured so far."""
        missing, details = dict(self._unavailable), dict(self._details)
        for name, column in (("noise", "noise_scale"), ("sharpness", "sharpness")):
            every = self._intervals.get(name)
            if every is not None and self._num_steps < every:
                if column not in missing:
                    missing[column] = Unavailable.TOO_FEW_STEPS
                    details[column] = (
                        f"{self._num_steps} steps are fewer than the {every} between two measurements; "
                        f"pass {name}_every= to measure more often"
                    )
        return Watched(
            **self._rows.columns(),
            num_steps=self._num_steps,
            num_samples=self._num_samples,
            settings=tuple(self._settings().items()),
            unavailable=tuple(missing.items()),
            details=tuple(details.items()),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured and where the next measurement begins, as tensors and plain values."""
        return {
            "num_steps": self._num_steps,
            "num_samples": self._num_samples,
            "rows": self._rows.state(),
            "direction": self._direction,
            "unavailable": {name: reason.name for name, reason in self._unavailable.items()},
            "details": dict(self._details),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved record, at its next step; call it after :meth:`start`, with the weights of that step."""
        self._forget()
        self._num_steps, self._num_samples = state["num_steps"], state["num_samples"]
        self._rows = Rows(state["rows"])
        self._direction = state["direction"]
        self._unavailable = {name: Unavailable[reason] for name, reason in state["unavailable"].items()}
        self._details = dict(state["details"])

    def _forget(self) -> None:
        self._num_steps = 0
        self._num_samples = None
        self._rows = Rows()
        self._direction = None
        self._unavailable, self._details = {}, {}
        self._positions = Positions(self.num_positions)
        self._wait()

    def _wait(self) -> None:
        """Begin anew with noticing calls and updates."""
        self._has_seen, self._num_unseen, self._open, self._before = False, 0, None, []

    def _interval(self, given: Interval, cost: float, share: float) -> int | None:
        return math.ceil(cost / (share * self.most_fraction)) if given == "auto" else given

    def _settings(self) -> dict[str, Any]:
        return {
            "every": self.every,
            "noise_every": self._intervals.get("noise"),
            "sharpness_every": self._intervals.get("sharpness"),
            "num_products": self.num_products,
        }


def plain(model: Any) -> Any:
    """Return the module inside what DistributedDataParallel or ``torch.compile`` made of it."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def _interval(name: str, value: Any) -> Interval:
    if value is None or value == "auto":
        return value  # type: ignore[no-any-return]
    return whole(name, value, minimum=1, way_out='it counts steps; "auto" is also possible, None is never')
