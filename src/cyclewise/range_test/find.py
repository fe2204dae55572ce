"""The learning-rate range test: find the peak rate for one-cycle, or say why there is none, and leave no trace."""

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise._validation import describe
from cyclewise.errors import ArgumentTypeError
from cyclewise.loaders import check_loader
from cyclewise.progress import Progress, progress_bar
from cyclewise.range_test.checks import check, check_groups, check_numbers, check_own_step, check_precision
from cyclewise.range_test.curve import Curve, finite
from cyclewise.range_test.doubt import is_unclear, link, refuse, starts_too_high
from cyclewise.range_test.readings import destroyed, read
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.result import RangeTest
from cyclewise.range_test.suggest import suggest
from cyclewise.range_test.sweep import Range, Sweeps, run_sweeps, shares
from cyclewise.range_test.trial import Trial
from cyclewise.state import preserve
from cyclewise.stepping import LossFunction, Step, unwrapped


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
    start_lr: float | None = None,
    end_lr: float | None = None,
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
            it. State that it hides in a closure (a scaler, an EMA) is given back when named in `also`; that of the
            object whose method it is, in any case.
        eval_step: ``eval_step(batch) -> float`` scores a batch without updating; used with `valid_loader`.
        valid_loader: held-out batches; without it up to six are set aside from the training batches. With it the
            curves are read from the loss of its first batch before each update, not the training loss: slower, but free
            of the noise between batches.
        num_steps: steps (optimizer updates) of all sweeps together, at least 10; 300 loses less than 100.
        total_steps: length in steps of the run that the rate is for; None: 250. Where samples are learned by heart it
            says how high a rate may be before a run does (of embeddings if `train_loader` has a length, or ends within
            the test), and of Adagrad, RAdam and RMSprop what they take of the rate by then; otherwise it is not used.
        start_lr: lowest rate to try, of the fastest group; None: 1e-5 of the rate whose first update would move
            the parameters by their own size.
        end_lr: highest rate to try; None: 30 times the rate whose first update would move them by their own size.
        sweep: how the rate rises in the first sweep, "exponential" or "linear"; the closer ones rise exponentially.
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
    model, optimizer = check(model, optimizer, loss_fn, train_loader, train_step, eval_step, valid_loader)
    check_precision(autocast_dtype, scaler, also)
    if train_step is not None:
        check_own_step(accumulation_steps, autocast_dtype, scaler)
    step = None
    if train_step is None:
        step = Step(model, optimizer, loss_fn, accumulation_steps=accumulation_steps, autocast_dtype=autocast_dtype,
                    scaler=scaler)  # fmt: skip
    update, evaluate = _functions(step, train_step, eval_step)
    return _find(
        model, optimizer, step, update, evaluate, train_loader, valid_loader=valid_loader, num_steps=num_steps,
        total_steps=total_steps, start_lr=start_lr, end_lr=end_lr, sweep=sweep, seed=seed,
        also=(loss_fn, scaler, train_step, eval_step, *also), progress=progress,
    )  # fmt: skip


def lr_find_by_step(
    step: Step,
    train_loader: Any,
    *,
    valid_loader: Any = None,
    num_steps: int = 100,
    total_steps: int | None = None,
    start_lr: float | None = None,
    end_lr: float | None = None,
    sweep: Literal["exponential", "linear"] = "exponential",
    seed: int = 0,
    also: Sequence[object] = (),
    progress: Progress = "auto",
) -> RangeTest:
    """Run the range test with a step that is made already, with its clipping, accumulation and precision.

    All other arguments, the result and the errors are those of :func:`lr_find`.
    """
    check_loader(train_loader, name="train_loader")
    if valid_loader is not None:
        check_loader(valid_loader, name="valid_loader")
    update, evaluate = _functions(step, None, None)
    return _find(
        step.model, step.optimizer, step, update, evaluate, train_loader, valid_loader=valid_loader,
        num_steps=num_steps, total_steps=total_steps, start_lr=start_lr, end_lr=end_lr, sweep=sweep, seed=seed,
        also=(step.loss_fn, step.scaler, step.clip, *also), progress=progress,
    )  # fmt: skip


def usual_options() -> dict[str, Any]:
    """Return the options of :func:`lr_find_by_step` with the values they have where they are left out."""
    parameters = inspect.signature(lr_find_by_step).parameters
    return {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(options: Collection[str]) -> None:
    """Raise :class:`ArgumentTypeError` where :func:`lr_find_by_step` takes no such option."""
    known = usual_options()
    for name in options:
        if name not in known:
            raise ArgumentTypeError(
                f"lr_find of a Learner must be given some of {', '.join(known)}, got {name}; "
                "what the step is made of is set where the Learner is made"
            )


def _find(
    model: nn.Module,
    optimizer: Optimizer,
    step: Step | None,
    update: Callable[[list[Any]], float],
    evaluate: Callable[[Any], float] | None,
    train_loader: Any,
    *,
    valid_loader: Any,
    num_steps: int,
    total_steps: int | None,
    start_lr: float | None,
    end_lr: float | None,
    sweep: str,
    seed: int,
    also: Sequence[object],
    progress: Progress,
) -> RangeTest:
    check_numbers(num_steps, total_steps, start_lr, end_lr, sweep, seed)
    check_groups(optimizer)
    settings: dict[str, Any] = {
        "num_steps": int(num_steps),
        "total_steps": None if total_steps is None else int(total_steps),
        "start_lr": None if start_lr is None else float(start_lr),
        "end_lr": None if end_lr is None else float(end_lr),
        "sweep": sweep,
        "accumulation_steps": 1 if step is None else step.accumulation_steps,
        "autocast_dtype": None if step is None or step.autocast_dtype is None else str(step.autocast_dtype),
        "seed": int(seed),
        "optimizer": type(unwrapped(optimizer)).__name__,
        "batches": "train_loader" if valid_loader is None else "valid_loader",
    }
    limits = Range(start_lr, end_lr, sweep)
    with (
        preserve(model, optimizer, *also, data=(train_loader, valid_loader)) as snapshot,
        # A loss that is not a number ends a sweep; it is no reason to raise.
        torch.autograd.set_detect_anomaly(False),
        progress_bar("range test", int(num_steps), progress) as bar,
    ):
        trial = Trial(model, optimizer, update, evaluate, step, snapshot, int(seed))
        trial.load(train_loader, valid_loader, max(shares(int(num_steps))))
        seen = run_sweeps(trial, limits, int(num_steps), bar, settings["total_steps"])
        if is_unclear(seen):
            seen.evaluation_noise = trial.evaluation_noise()
    settings["batch_size"] = trial.batch_size()
    return _conclude(seen, trial, tuple(settings.items()))


def _functions(
    step: Step | None, train_step: Any, eval_step: Any
) -> tuple[Callable[[list[Any]], float], Callable[[Any], float] | None]:
    if step is not None:
        return lambda batches: float(step(batches)), lambda batch: float(step.loss(batch))
    evaluate = None if eval_step is None else lambda batch: _number("eval_step", eval_step(batch))
    return lambda batches: _number("train_step", train_step(batches[0])), evaluate


def _conclude(seen: Sweeps, trial: Trial, settings: Any) -> RangeTest:
    given = dict(settings)
    is_bounded = given["end_lr"] is not None
    refusal, related = refuse(seen, is_bounded=is_bounded), None
    if refusal in (Refusal.NO_IMPROVEMENT, Refusal.UNRELATED):
        related = trial.is_related()
        refusal = refuse(seen, is_bounded=is_bounded, is_related=bool(related))
    max_lr: float | None = None
    interval: tuple[float, float] | None = None
    overfit_lr: float | None = None
    if refusal is None:
        curve = seen.curves[-1].usable()
        reading = read(curve.lr, curve.loss)
        by_heart = seen.highest_rate(given["total_steps"])
        lost = destroyed(curve.loss)
        max_lr, interval = suggest(
            curve.lr,
            reading,
            trial.traits,
            num_samples=trial.num_samples,
            total_steps=given["total_steps"],
            highest=min(by_heart, given["end_lr"] or math.inf),
            lost_at=math.inf if lost is None else float(curve.lr[lost]),
            hints=seen.hints(),
            links=seen.links[: len(curve.lr)],
        )
        overfit_lr = by_heart if math.isfinite(by_heart) else None
    if given["start_lr"] is not None and starts_too_high(seen, max_lr):
        refusal, max_lr, interval, overfit_lr = Refusal.STARTS_TOO_HIGH, None, None, None
    return RangeTest(
        curve=seen.curves[0] if seen.curves else Curve(np.zeros(0), np.zeros(0)),
        close_ups=tuple(seen.curves[1:]),
        stop_reason=seen.stop_reasons[-1] if seen.stop_reasons else StopReason.NOT_STARTED,
        refusal=refusal,
        max_lr=max_lr,
        interval=interval,
        max_lrs=None if max_lr is None else tuple(ratio * max_lr for ratio in trial.ratios),
        num_steps=trial.num_updates,
        num_evaluations=trial.num_evaluations,
        improvement=finite(seen.looks.improvement()),
        link=finite(link(seen)),
        related=related,
        overfit_lr=overfit_lr,
        settings=settings,
    )


def _number(name: str, loss: Any) -> float:
    try:
        # A loss with its graph would warn.
        return float(loss.detach() if isinstance(loss, Tensor) else loss)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"{name} must return the loss as a number, got {describe(loss)}; end it with `return loss.item()`"
        ) from error
