"""A fit in progress: the one training loop, and all that is needed to take it up again."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from cyclewise.errors import CheckpointError, DivergedError
from cyclewise.param_groups import Groups
from cyclewise.policies import Policy, Rescaled
from cyclewise.policies.base import highest
from cyclewise.progress import Bar
from cyclewise.scheduler import PolicyLR
from cyclewise.stepping import Step
from cyclewise.training import hidden, optimizer_state
from cyclewise.training.boundary import Boundary
from cyclewise.training.callbacks import Callback, overriding
from cyclewise.training.calls import as_text, check_policy
from cyclewise.training.data import Data
from cyclewise.training.history import Epoch
from cyclewise.training.interrupts import Interrupts
from cyclewise.training.place import Place
from cyclewise.training.recorder import Recorder
from cyclewise.training.runtime import Runtime

_SECONDS_PER_NOTE = 0.1
# A scaler that begins at 2**16 comes in half as many below the smallest number of float16.
_MOST_SKIPPED = 50
_ROLLBACK_FACTOR = 0.5
_MOST_ROLLBACKS = 5

StepHook = Callable[[int, Tensor], None]


class Run:
    """One fit: its step, its policies, its place in the data, and what it has recorded.

    Args:
        number: which fit of the script, from 1.
        step: makes the updates.
        policies: one per parameter group, or a single one for all.
        data: the batches of this rank.
        callbacks: in the order in which their states are saved.
        runtime: the ranks.
        groups_at_start: the optimizer's hyperparameters as they were when the fit was called.
        wd: the fit's own weight decay; None if it has none.
        can_undo: note what it takes to go back from the middle of a step to the one before.

    Attributes:
        num_steps: updates made.
        total_steps: updates in all.
        stop_reason: why it is to end early; None if it is not.
        has_begun: whether :meth:`train` was called; before, the fit may still be refused.
        boundary: where all of it last belonged to the same step.
    """

    def __init__(
        self,
        number: int,
        step: Step,
        policies: Sequence[Policy],
        data: Data,
        callbacks: Sequence[Callback],
        runtime: Runtime,
        *,
        groups_at_start: Groups,
        wd: float | None,
        can_undo: bool,
    ) -> None:
        self.number = number
        self.step = step
        self.text = as_text(policies, wd)
        self.total_steps = policies[0].total_steps
        self.callbacks = list(callbacks)
        self.groups_at_start = groups_at_start
        self.sets_decay = wd is not None
        self.num_steps = 0
        self.stop_reason: str | None = None
        self.has_begun = False
        self.place = Place(data.train_loader, data.valid_loader)
        self._policies = list(policies)
        self._runtime = runtime
        self.boundary = Boundary(step, self.place, is_marked=can_undo and runtime.num_ranks == 1)
        self._rescalings: list[tuple[int, float]] = []
        self._epoch_start = 0
        self._seconds = 0.0
        self._started = time.perf_counter()
        self._num_skipped = 0
        self._last_batches: Sequence[Any] = ()
        # States to roll back to, the newest last: it may turn out to be destroyed itself.
        self._good: list[dict[str, Any]] = []
        self.scheduler = self._make_scheduler()
        self.recorder = Recorder(self._fastest(), is_eager=step.device.type == "cpu")

    def train(
        self,
        *,
        validate: Callable[[], Mapping[str, float]],
        on_step_end: Sequence[StepHook],
        on_epoch_end: Sequence[Callable[[Epoch], None]],
        rolls_back: bool,
        interrupts: Interrupts,
        bar: Bar,
    ) -> None:
        """Make the updates that are left, passing over the loader as often as needed.

        An epoch ends where the loader ends, and at the last step.

        Raises:
            DivergedError: a training loss was not finite.
            KeyboardInterrupt: Ctrl-C was pressed; where it was pressed once, the last step is whole.
        """
        self.has_begun = True
        if not rolls_back:
            self._good = []
        self.boundary.reach()
        # A run that is resumed after its last step may have that pass still to be scored.
        while self.place.is_within or not self.is_over():
            if rolls_back and not self.place.is_within:
                self._keep_if_good()
            self._started = time.perf_counter()
            self.boundary.leave()
            try:
                self._one_pass(on_step_end, interrupts, bar)
                self.recorder.look()
                self._show_on(bar)
            except DivergedError as error:
                self.boundary.leave(for_good=True)
                self._explain(error)
                if not self._good or len(self._rescalings) >= _MOST_ROLLBACKS:
                    raise
                self._roll_back(error, bar)
                self.boundary.reach()
                continue
            # A callback that has a part in the validation has moved when it is cut off.
            if overriding(self.callbacks, "on_validation_start") or overriding(self.callbacks, "on_validation_end"):
                self.boundary.leave(for_good=True)
            scores = validate()
            self.boundary.leave(for_good=True)
            seconds = self._elapsed()
            epoch = self.recorder.end_epoch(self._epoch_start, scores, seconds)
            self._epoch_start, self._seconds = self.num_steps, 0.0
            self._started = time.perf_counter()
            self.place.end_pass()
            bar.tell(f"epoch {self.recorder.num_epochs}: {_note(epoch)}  ({seconds:.1f} s)")
            self._call(on_epoch_end, epoch)
            self.boundary.reach()
            # Pressed while the epoch was validated: no step may come in which it would be noticed.
            if interrupts.pending or self._runtime.num_ranks > 1:
                self._act_on(interrupts, has_looked=True)

    def _one_pass(self, on_step_end: Sequence[StepHook], interrupts: Interrupts, bar: Bar) -> None:
        step, scheduler, recorder, place, boundary = self.step, self.scheduler, self.recorder, self.place, self.boundary
        rest = step.accumulation_steps - 1
        has_ranks = self._runtime.num_ranks > 1
        next_note = 0.0
        batches = place.one_pass()
        if self.is_over():
            return
        for batch in batches:
            group = (batch,)
            if rest:
                group += tuple(islice(batches, rest))
                place.is_exhausted = len(group) <= rest
            self._last_batches = group
            loss = step(group)
            place.num_batches += len(group)
            has_looked = False
            if step.skipped:
                self._count_skipped()
            else:
                scheduler.step()
                self._num_skipped = 0
                has_looked = recorder.add_loss(loss)
                self.num_steps += 1
                if on_step_end:
                    self._call(on_step_end, self.num_steps - 1, loss)
                if bar.is_shown and (now := time.perf_counter()) > next_note:
                    next_note = now + _SECONDS_PER_NOTE
                    self._show_on(bar)
            boundary.reach()
            if interrupts.pending or (has_ranks and has_looked):
                self._act_on(interrupts, has_looked)
            boundary.leave()
            if self.is_over():
                break

    def _show_on(self, bar: Bar) -> None:
        if bar.is_shown and self.num_steps:
            lr = self.recorder.policy.lr(self.num_steps - 1)
            bar.move_to(self.num_steps, f"lr {lr:.2g}  loss {self.recorder.last_loss:.4g}")

    def _call(self, hooks: Sequence[Callable[..., None]], *arguments: Any) -> None:
        rest = iter(hooks)
        try:
            for hook in rest:
                hook(*arguments)
        except KeyboardInterrupt as error:
            # One that a hook raises itself is a Ctrl-C after its last line, and the other hooks see the step too. A
            # signal's comes from a handler, and has cut the hook off wherever it was.
            if _is_raised_by(hooks, error):
                for hook in rest:
                    hook(*arguments)
                self.boundary.reach()
            raise

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._started

    def _act_on(self, interrupts: Interrupts, has_looked: bool) -> None:
        if self._runtime.num_ranks == 1:
            raise KeyboardInterrupt
        # All ranks must stop after the same step: they ask each other whenever they look at their losses. One that is
        # interrupted while they do stops alone, and a checkpoint needs all.
        if has_looked:
            self.boundary.leave(for_good=True)
            is_agreed = any(self._runtime.gather(interrupts.pending))
            self.boundary.reach()
            if is_agreed:
                raise KeyboardInterrupt

    def _count_skipped(self) -> None:
        self._num_skipped += 1
        if self._num_skipped >= _MOST_SKIPPED:
            raise DivergedError(
                f"the gradient scaler skipped {self._num_skipped} updates in a row at step {self.num_steps}: the "
                'gradients are not finite; look for NaN in the inputs, or train with mixed_precision="bf16"'
            )

    def _explain(self, error: DivergedError) -> None:
        if error.step is None:
            error.step, error.lr = self.num_steps, float(self.recorder.policy.lr(self.num_steps))
        if error.step >= self.num_steps and _has_nan(self._last_batches):
            error.add("this step's batch holds values that are not finite")

    # -- going back and going on ------------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Return whether no step is left to be made."""
        return self.num_steps == self.total_steps or self.stop_reason is not None

    def state_dict(self) -> dict[str, Any]:
        """Return all but the model and the optimizer, the places of all ranks included; every rank must call it."""
        self.recorder.look()
        place = self.place.state_dict()
        good = [{**state, "places": self._runtime.gather(state["place"])} for state in self._good]
        return {
            "number": self.number,
            "policy": self.text,
            "num_steps": self.num_steps,
            "stop_reason": self.stop_reason,
            "epoch_start": self._epoch_start,
            "seconds": self._elapsed(),
            "rescalings": list(self._rescalings),
            "groups_at_start": copy.deepcopy(self.groups_at_start),
            "recorder": self.recorder.state_dict(),
            "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in self.callbacks],
            "places": self._runtime.gather(place),
            "accumulation_steps": self.step.accumulation_steps,
            "good": good,
            "trained": hidden.trained(self.step.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved fit was.

        Raises:
            CheckpointError: the fit is another one, or its callbacks are.
        """
        check_policy(self.number, state["policy"], self.text)
        saved = [name for name, _ in state["callbacks"]]
        given = [type(callback).__name__ for callback in self.callbacks]
        if saved != given:
            raise CheckpointError(
                f"fit {self.number} of the saved run has the callbacks {saved}, got {given}; pass the same ones"
            )
        if state["accumulation_steps"] != self.step.accumulation_steps:
            raise CheckpointError(
                f"fit {self.number} of the saved run has accumulation_steps={state['accumulation_steps']}, "
                f"got {self.step.accumulation_steps}; make the Learner with the one that was saved"
            )
        good = state["good"] or []
        # Runs of before there were two kept one, and not what was trained.
        states = good if isinstance(good, list) else [good]
        self._good = [{**state, "place": state["places"][self._runtime.rank]} for state in states]
        if "trained" in state:
            hidden.restore_trained(self.step.model, state["trained"])
        for callback, (_, its_state) in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(its_state)
        self._load_progress(state)
        self.stop_reason = state["stop_reason"]
        self.place.load_state_dict(state["places"][self._runtime.rank])

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self.num_steps, self._epoch_start = state["num_steps"], state["epoch_start"]
        self._seconds = state["seconds"]
        self._rescalings = [(at_step, factor) for at_step, factor in state["rescalings"]]
        self.recorder.load_state_dict(state["recorder"])
        self._go_to(self.num_steps)

    def _go_to(self, num_steps: int) -> None:
        self.scheduler = self._make_scheduler()
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), "step": num_steps})
        self.recorder.policy = self._fastest()

    def _make_scheduler(self) -> PolicyLR:
        policies = [self._rescaled(policy) for policy in self._policies]
        return PolicyLR(self.step.optimizer, policies if len(policies) > 1 else policies[0])

    def _rescaled(self, policy: Policy) -> Policy:
        for at_step, factor in self._rescalings:
            policy = Rescaled(original=policy, factor=factor, at_step=at_step)
        return policy

    def _fastest(self) -> Policy:
        policies = [self._rescaled(policy) for policy in self._policies]
        return policies[0] if len(policies) == 1 else max(policies, key=lambda policy: highest(policy)[1])

    def _keep_if_good(self) -> None:
        if self._good and (self._good[-1]["progress"]["num_steps"] == self.num_steps or not self.recorder.is_healthy()):
            return
        del self._good[:-1]  # before there is a third
        self._good.append(copy.deepcopy(self._state_for_rollback()))

    def _state_for_rollback(self) -> dict[str, Any]:
        step = self.step
        return {
            "model": step.model.state_dict(),
            "buffers": hidden.hidden_buffers(step.model),
            "optimizer": step.optimizer.state_dict(),
            "scaler": None if step.scaler is None else step.scaler.state_dict(),
            "clip": None if step.clip is None else step.clip.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "place": self.place.state_dict(),
            "progress": {
                "num_steps": self.num_steps,
                "epoch_start": self._epoch_start,
                "seconds": 0.0,
                "recorder": self.recorder.state_dict(),
            },
        }

    def _roll_back(self, error: DivergedError, bar: Bar) -> None:
        if len(self._good) > 1 and error.step <= self._good[-1]["progress"]["num_steps"]:
            self._good.pop()  # its very first loss is not finite
        good = self._good[-1]
        step = self.step
        self._num_skipped = 0
        step.model.load_state_dict(good["model"])
        hidden.restore_buffers(step.model, good.get("buffers", {}))
        optimizer_state.load(step.optimizer, copy.deepcopy(good["optimizer"]))
        if step.scaler is not None:
            step.scaler.load_state_dict(good["scaler"])
        if step.clip is not None:
            step.clip.load_state_dict(copy.deepcopy(good["clip"]))
        for callback, state in zip(self.callbacks, good["callbacks"], strict=True):
            callback.load_state_dict(copy.deepcopy(state))
        at_step = good["progress"]["num_steps"]
        self._rescalings.append((at_step, _ROLLBACK_FACTOR))
        self._load_progress({**good["progress"], "rescalings": self._rescalings})
        self.place.load_state_dict(good["place"])
        bar.warn(
            f"the training loss was not finite at step {error.step}; rolled back to step {at_step}, "
            f"the rates from there on times {_ROLLBACK_FACTOR}"
        )


def _is_raised_by(hooks: Sequence[Callable[..., None]], error: BaseException) -> bool:
    """Return whether a statement of one of the functions, called where the error was caught, has raised it."""
    where = error.__traceback__ and error.__traceback__.tb_next
    if where is None or where.tb_next is not None:
        return False
    functions = [getattr(hook, "func", hook) for hook in hooks]
    return any(where.tb_frame.f_code is getattr(function, "__code__", None) for function in functions)


def _has_nan(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    return isinstance(value, (tuple, list)) and any(map(_has_nan, value))


def _note(epoch: Epoch) -> str:
    parts = [f"train loss {epoch.train_loss:.4g}"]
    if epoch.valid_loss is not None:
        parts.append(f"valid loss {epoch.valid_loss:.4g}")
    return "  ".join(parts + [f"{name} {value:.4g}" for name, value in epoch.metrics.items()])
