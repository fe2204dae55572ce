"""The one training loop: steps, a policy step after each, validation at each epoch's end, and what to record of it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclewise.errors import DivergedError
from cyclewise.policies import Policy
from cyclewise.progress import Progress, progress_bar
from cyclewise.scheduler import PolicyLR
from cyclewise.stepping import Batches, LossFunction, Step, batch_loss, device_of, evaluating, to_device
from cyclewise.training.history import Epoch, History

Metric = Callable[[Any, Any], Any]

# On an accelerator reading a loss makes it wait, so losses are looked at this many steps at a time.
_STEPS_PER_LOOK = 32


class Recorder:
    """Collects the losses of a fit and turns them into a :class:`History`.

    Args:
        policy: the policy of the fastest group; rates and momenta are read from it, not collected.
        is_eager: look at every loss at once (free on a CPU) instead of some steps later.
    """

    def __init__(self, policy: Policy, *, is_eager: bool) -> None:
        self._policy = policy
        self._steps_per_look = 1 if is_eager else _STEPS_PER_LOOK
        self._pending: list[Tensor] = []
        self._losses: list[float] = []
        self._epochs: list[Epoch] = []

    @property
    def num_steps(self) -> int:
        """Steps recorded so far."""
        return len(self._losses) + len(self._pending)

    def add_loss(self, loss: Tensor) -> None:
        """Record the loss of the next step.

        Raises:
            DivergedError: a loss since the last look was not finite.
        """
        self._pending.append(loss)
        if len(self._pending) >= self._steps_per_look:
            self.look()

    def look(self) -> None:
        """Read the losses still on the device.

        Raises:
            DivergedError: one of them was not finite.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        first = len(self._losses)
        losses = [pending[0].item()] if len(pending) == 1 else torch.stack(pending).float().tolist()
        self._losses.extend(losses)
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = first + offset
                lr = float(self._policy.lr(step))
                raise DivergedError(
                    f"the training loss is {loss} at step {step}, with a learning rate of {lr:.3g}; "
                    "train with a lower max_lr (lr_find gives one), or look for NaN in the inputs",
                    step=step,
                    lr=lr,
                )

    def end_epoch(self, first_step: int, scores: Mapping[str, float], seconds: float) -> Epoch:
        """Record the epoch that began at `first_step`; `scores` are those of the validation data, by name."""
        metrics = dict(scores)
        losses = self._losses[first_step:]
        epoch = Epoch(
            step=len(self._losses),
            train_loss=float(np.mean(losses)) if losses else math.nan,
            valid_loss=metrics.pop("loss", None),
            metrics=metrics,
            seconds=seconds,
        )
        self._epochs.append(epoch)
        return epoch

    def history(self) -> History:
        """Return what was recorded; losses still on the device are read, finite or not."""
        try:
            self.look()
        except DivergedError:
            pass
        steps = np.arange(len(self._losses))
        momentum = self._policy.momentum(steps)
        return History(
            lr=np.asarray(self._policy.lr(steps), dtype=np.float64),
            momentum=np.full(len(steps), math.nan) if momentum is None else np.asarray(momentum, dtype=np.float64),
            loss=np.array(self._losses),
            epochs=tuple(self._epochs),
            policies=(repr(self._policy),),
        )


def run_fit(
    step: Step,
    scheduler: PolicyLR,
    train_loader: Any,
    *,
    total_steps: int,
    recorder: Recorder,
    validate: Callable[[], Mapping[str, float]],
    on_step_end: Sequence[Callable[[int, Tensor], None]] = (),
    on_epoch_end: Sequence[Callable[[Epoch], None]] = (),
    progress: Progress = "auto",
) -> None:
    """Make `total_steps` updates, passing over `train_loader` as often as needed.

    An epoch ends where the loader ends, and at the last step.

    Raises:
        DivergedError: a training loss was not finite.
        ArgumentError: the loader is empty.
    """
    batches = Batches(train_loader)
    num_done = 0
    note = ""
    with progress_bar("training", total_steps, progress) as bar:
        while num_done < total_steps:
            started, first_step = time.perf_counter(), num_done
            for batch in batches.one_pass():
                loss = step((batch,))
                scheduler.step()
                recorder.add_loss(loss)
                for hook in on_step_end:
                    hook(num_done, loss)
                num_done += 1
                if bar.is_shown:
                    bar.advance(note)
                if num_done == total_steps:
                    break
            recorder.look()
            epoch = recorder.end_epoch(first_step, validate(), time.perf_counter() - started)
            note = _note(epoch)
            for epoch_hook in on_epoch_end:
                epoch_hook(epoch)


def score(
    model: nn.Module, loss_fn: LossFunction | None, metrics: Mapping[str, Metric], loader: Any
) -> dict[str, float]:
    """Return the mean loss and metrics over `loader` in eval mode, each batch weighted by its samples."""
    device = device_of(model)
    sums: dict[str, float] = dict.fromkeys(["loss", *metrics], 0.0)
    num_samples = 0
    outputs: list[Any] = []

    def remember(*arguments: Any, **named: Any) -> Any:
        outputs[:] = [model(*arguments, **named)]
        return outputs[0]

    with evaluating(model):
        for batch in loader:
            if device.type != "cpu":
                batch = to_device(batch, device)
            loss = batch_loss(remember, loss_fn, batch)
            targets = batch if isinstance(batch, Mapping) else batch[-1]
            size = _num_samples(targets)
            num_samples += size
            sums["loss"] += float(loss) * size
            for name, metric in metrics.items():
                sums[name] += float(metric(outputs[0], targets)) * size
    return {name: total / num_samples for name, total in sums.items()} if num_samples else {}


def _num_samples(targets: Any) -> int:
    if isinstance(targets, Tensor):
        return len(targets) if targets.ndim else 1
    if isinstance(targets, Mapping):
        return next((_num_samples(value) for value in targets.values() if isinstance(value, Tensor)), 1)
    return len(targets) if hasattr(targets, "__len__") else 1


def _note(epoch: Epoch) -> str:
    parts = [f"train loss {epoch.train_loss:.4g}"]
    if epoch.valid_loss is not None:
        parts.append(f"valid loss {epoch.valid_loss:.4g}")
    return "  ".join(parts + [f"{name} {value:.4g}" for name, value in epoch.metrics.items()])
