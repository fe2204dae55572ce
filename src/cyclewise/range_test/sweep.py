"""Run a learning-rate range test (Smith, arXiv:1506.01186, section 3.3) and leave no trace.

The rate rises from `start_lr` to `end_lr` over n = `num_steps` steps, exponentially
(``start_lr * (end_lr / start_lr)**(i / (n - 1))``) or linearly; every step is one real optimizer update. With several
parameter groups one factor moves all of them and their ratios stay as the optimizer has them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise._validation import describe, instance, one_of, positive, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.progress import Progress, progress_bar
from cyclewise.range_test import suggest
from cyclewise.range_test.divergence import Divergence
from cyclewise.range_test.result import Curve, RangeTest, Refusal, StopReason
from cyclewise.scheduler import read_rates, write_rates
from cyclewise.state import preserve, seed_everything
from cyclewise.stepping import Batches, LossFunction, Step, check_loader, evaluating

_FEWEST_STEPS = 10


def lr_find(
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    loss_fn: LossFunction | None = None,
    train_loader: Any = None,
    *,
    train_step: Callable[[Any], float] | None = None,
    eval_step: Callable[[Any], float] | None = None,
    valid_loader: Any = None,
    num_steps: int = 100,
    total_steps: int | None = None,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    sweep: Literal["exponential", "linear"] = "exponential",
    accumulation_steps: int = 1,
    autocast_dtype: torch.dtype | None = None,
    scaler: "torch.amp.GradScaler | None" = None,
    seed: int = 0,
    also: Sequence[object] = (),
    progress: Progress = "auto",
) -> RangeTest:
    """Run a range test and return the peak rate for one-cycle with its interval, or a refusal that says why.

    Everything passed in is given back bit for bit, however the call ends: weights, buffers, gradients, optimizer state,
    rates, modes, counters, and the random number generators. Exceptions of your own code pass through unchanged.

    Call it in one of two ways: with `model`, `optimizer`, `loss_fn` and `train_loader`; or, for any loop of your own,
    with ``train_step=``, `model`, `optimizer` and `train_loader`.

    Args:
        model: the model. If it is in eval mode it is put into train mode for the test, as a loop would.
        optimizer: its optimizer; rates may differ between groups, their ratios are kept.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None takes ``output.loss`` for dict batches.
        train_loader: batches ``(inputs, targets)`` or dicts; started again whenever it ends.
        train_step: ``train_step(batch) -> float`` makes one update, from zero_grad to step, and returns the loss before
            it. State that it hides (a scaler, an EMA) is given back when named in `also`.
        eval_step: ``eval_step(batch) -> float`` scores a batch without updating; used with `valid_loader`.
        valid_loader: score its first batch before each update and read the curve from those losses instead of the
            training losses: slower, but free of the noise between batches.
        num_steps: steps (optimizer updates) of the sweep, at least 10.
        total_steps: length in steps of the run that the rate is for; recorded, and not yet used by the suggestion.
        start_lr: rate of the first step, of the fastest group.
        end_lr: rate of the last step, above `start_lr`.
        sweep: "exponential" or "linear".
        accumulation_steps: batches per step.
        autocast_dtype: run under ``torch.autocast`` in this dtype.
        scaler: a ``torch.amp.GradScaler``; given back too.
        seed: seeds the global generators before the sweep; same seed, machine and thread count: same bits.
        also: further objects whose state must be given back.
        progress: True, False, or "auto": a bar where standard error is a terminal.

    Returns:
        the record; ``max_lr`` is None when refused, ``refusal.remedy`` then says what to do.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work, or `train_loader` can be read only once.
        ArgumentError: an argument has a value that cannot work.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(256, 8)
        >>> loader = torch.utils.data.DataLoader(
        ...     torch.utils.data.TensorDataset(inputs, inputs @ torch.randn(8, 1)), batch_size=32
        ... )
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        >>> result = lr_find(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.functional.mse_loss, loader)
        >>> 0.01 < result.max_lr < 0.5, result.refusal
        (True, None)
    """
    whole("num_steps", num_steps, minimum=_FEWEST_STEPS, way_out="100 is a good number")
    positive("start_lr", start_lr, way_out="1e-7 suits most models")
    positive("end_lr", end_lr, way_out="10 suits most models")
    if end_lr <= start_lr:
        raise ArgumentError(f"end_lr must be above start_lr={start_lr!r}, got {end_lr!r}; swap them")
    one_of("sweep", sweep, ("exponential", "linear"))
    whole("seed", seed, minimum=0, way_out="pass 0")
    if total_steps is not None:
        whole("total_steps", total_steps, minimum=1, way_out="pass epochs * len(train_loader), or None")
    trial = _trial(model, optimizer, loss_fn, train_loader, train_step, eval_step, valid_loader, accumulation_steps,
                   autocast_dtype, scaler)  # fmt: skip
    settings = {
        "num_steps": int(num_steps),
        "total_steps": total_steps,
        "start_lr": float(start_lr),
        "end_lr": float(end_lr),
        "sweep": sweep,
        "accumulation_steps": int(accumulation_steps),
        "autocast_dtype": None if autocast_dtype is None else str(autocast_dtype),
        "seed": int(seed),
        "optimizer": type(trial.optimizer).__name__,
        "batches": "train_loader" if trial.score is None else "valid_loader",
    }
    rates = sweep_rates(float(start_lr), float(end_lr), int(num_steps), sweep)
    with preserve(trial.model, trial.optimizer, loss_fn, scaler, *also, data=(train_loader, valid_loader)):
        seed_everything(int(seed))
        if not trial.model.training:
            trial.model.train()
        ratios = _ratios(trial.optimizer)
        stop_reason, refusal = _run(trial, rates, ratios, progress)
    return _conclude(trial, ratios, stop_reason, refusal, tuple(settings.items()))


def sweep_rates(start_lr: float, end_lr: float, num_steps: int, sweep: str) -> list[float]:
    """Return the rate of each step; the first is `start_lr` and the last `end_lr`, exactly.

    >>> sweep_rates(0.01, 1.0, 3, "exponential"), sweep_rates(0.0, 1.0, 3, "linear")
    ([0.01, 0.1, 1.0], [0.0, 0.5, 1.0])
    """
    if sweep == "linear":
        return [float(rate) for rate in np.linspace(start_lr, end_lr, num_steps)]
    return [float(rate) for rate in np.geomspace(start_lr, end_lr, num_steps)]


@dataclass
class _Trial:
    """One sweep under way: how to update, how to score, and what was seen."""

    model: nn.Module
    optimizer: Optimizer
    update: Callable[[], float]
    score: Callable[[], float] | None
    reads_gradients: bool
    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    num_updates: int = 0


def _trial(
    model: Any,
    optimizer: Any,
    loss_fn: Any,
    train_loader: Any,
    train_step: Any,
    eval_step: Any,
    valid_loader: Any,
    accumulation_steps: int,
    autocast_dtype: torch.dtype | None,
    scaler: Any,
) -> _Trial:
    instance("model", model, nn.Module, "a torch.nn.Module",
             way_out="pass it with train_step= too, so that it can be given back as it was")  # fmt: skip
    instance("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer",
             way_out="pass it with train_step= too: its rates are what is swept")  # fmt: skip
    if train_loader is None:
        raise ArgumentTypeError("train_loader must be an iterable of batches, got None; pass the loader you train with")
    batches = Batches(train_loader)
    if valid_loader is not None:
        check_loader(valid_loader, name="valid_loader")
    if train_step is not None:
        if not callable(train_step):
            raise ArgumentTypeError(
                f"train_step must be a function batch -> float, got {describe(train_step)}; "
                "let it make one update and return the loss before it"
            )
        if loss_fn is not None:
            raise ArgumentError(
                "loss_fn must be None when train_step= is given, got a loss function; pass one of the two"
            )
        if valid_loader is not None and eval_step is None:
            raise ArgumentError(
                "eval_step must be a function batch -> float when valid_loader is given with train_step=, got None; "
                "pass eval_step=, or leave valid_loader out"
            )
        score = None if valid_loader is None else _scorer(lambda batch: _number(eval_step(batch)), valid_loader)
        return _Trial(model, optimizer, lambda: _number(train_step(*batches.take(1))), score, reads_gradients=False)
    step = Step(model, optimizer, loss_fn, accumulation_steps=accumulation_steps, autocast_dtype=autocast_dtype,
                scaler=scaler)  # fmt: skip
    score = None if valid_loader is None else _scorer(lambda batch: _held_out(model, step, batch), valid_loader)
    return _Trial(
        model, optimizer, lambda: float(step(batches.take(step.accumulation_steps))), score, reads_gradients=True
    )


def _run(
    trial: _Trial, rates: list[float], ratios: list[float], progress: Progress
) -> tuple[StopReason, Refusal | None]:
    parameters = [p for group in trial.optimizer.param_groups for p in group["params"]]
    if not any(p.requires_grad for p in parameters):
        return StopReason.NOT_STARTED, Refusal.FROZEN
    watch = Divergence()
    with progress_bar("range test", len(rates), progress) as bar:
        for i, rate in enumerate(rates):
            write_rates(trial.optimizer, [ratio * rate for ratio in ratios])
            held_out = None if trial.score is None else trial.score()
            loss = trial.update()
            trial.num_updates += 1
            trial.lrs.append(rate)
            trial.losses.append(loss if held_out is None else held_out)
            if not (math.isfinite(loss) and math.isfinite(trial.losses[-1])):
                trial.losses[-1] = math.nan
                return StopReason.NONFINITE, Refusal.NONFINITE_START if i == 0 else None
            if i == 0 and trial.reads_gradients and all(_is_zero(p.grad) for p in parameters):
                return StopReason.COMPLETED, Refusal.ZERO_GRADIENT
            if watch.update(trial.losses[-1]):
                return StopReason.DIVERGED, None
            if bar.is_shown:
                bar.advance(f"lr {rate:.2g}  loss {trial.losses[-1]:.4g}")
    return StopReason.COMPLETED, None


def _conclude(
    trial: _Trial,
    ratios: list[float],
    stop_reason: StopReason,
    refusal: Refusal | None,
    settings: tuple[tuple[str, Any], ...],
) -> RangeTest:
    curve = Curve(np.array(trial.lrs), np.array(trial.losses))
    usable = curve.usable()
    max_lr: float | None = None
    interval: tuple[float, float] | None = None
    if refusal is None:
        refusal = _refuse(usable, stop_reason)
    if refusal is None:
        max_lr, interval = suggest.suggest(usable.lr, suggest.read(usable.lr, usable.loss))
    return RangeTest(
        curve=curve,
        stop_reason=stop_reason,
        refusal=refusal,
        max_lr=max_lr,
        interval=interval,
        max_lrs=None if max_lr is None else tuple(ratio * max_lr for ratio in ratios),
        num_steps=trial.num_updates,
        num_evaluations=0 if trial.score is None else len(trial.lrs),
        settings=settings,
    )


def _refuse(curve: Curve, stop_reason: StopReason) -> Refusal | None:
    if len(curve.lr) < suggest.FEWEST_POINTS:
        return Refusal.TOO_FEW_STEPS
    reading = suggest.read(curve.lr, curve.loss)
    if not reading.falls:
        return Refusal.NO_IMPROVEMENT
    if stop_reason is StopReason.COMPLETED and reading.lowest >= len(curve.lr) - 2:
        return Refusal.STILL_FALLING
    if reading.lowest <= 2:
        return Refusal.FALLING_FROM_START
    return None


def _ratios(optimizer: Optimizer) -> list[float]:
    rates = read_rates(optimizer)
    fastest = max(rates, default=0.0)
    return [rate / fastest for rate in rates] if fastest > 0 else [1.0] * len(rates)


def _scorer(evaluate: Callable[[Any], float], valid_loader: Any) -> Callable[[], float]:
    kept: list[Any] = []

    def score() -> float:
        if not kept:
            kept.extend(Batches(valid_loader, name="valid_loader").take(1))
        return evaluate(kept[0])

    return score


def _held_out(model: nn.Module, step: Step, batch: Any) -> float:
    with evaluating(model):
        return float(step.loss(batch))


def _is_zero(gradient: Tensor | None) -> bool:
    if gradient is None:
        return True
    return not bool((gradient.coalesce().values() if gradient.is_sparse else gradient).count_nonzero())


def _number(loss: Any) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"train_step must return the loss as a number, got {describe(loss)}; end it with `return loss.item()`"
        ) from error
