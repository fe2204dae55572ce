"""The Learner: model, data, loss and optimizer together, with the article's calls."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cyclewise._validation import describe, instance, one_of, whole
from cyclewise.clipping import make_clip
from cyclewise.errors import ArgumentError, DivergedError
from cyclewise.mismatch import check_loss_fn
from cyclewise.policies import Policy
from cyclewise.progress import Progress, check_progress, progress_bar
from cyclewise.range_test import RangeTest, check_options, lr_find_by_step
from cyclewise.range_test.checks import check_precision
from cyclewise.stepping import LossFunction, Step, device_of, unwrapped
from cyclewise.training import decay, saving
from cyclewise.training.callbacks import Callback, check_callbacks, end_all, overriding
from cyclewise.training.calls import Calls, as_policies, as_text
from cyclewise.training.checkpoint import Checkpoint, checkpoints_last
from cyclewise.training.data import Data
from cyclewise.training.diagnosing import DiagnoseMethods
from cyclewise.training.fitting import FitMethods, steps_in_epochs
from cyclewise.training.groups import (
    LayerMethods,
    check_initialised,
    check_layer_groups,
    check_owned,
    check_trains,
    frozen_batch_norms,
    make_optimizer,
)
from cyclewise.training.history import History
from cyclewise.training.interrupts import interrupts_between_steps
from cyclewise.training.metrics import class_loss, first_looks
from cyclewise.training.run import Run
from cyclewise.training.runtime import Runtime
from cyclewise.training.saving import SaveMethods
from cyclewise.training.sched import Sched
from cyclewise.training.scoring import Metric, ScoreMethods, check_metrics
from cyclewise.training.snapshots import snapshots_in
from cyclewise.training.starting import StartMethods

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


class Learner(FitMethods, LayerMethods, SaveMethods, ScoreMethods, DiagnoseMethods, StartMethods):
    """Train a model: find a rate, fit by a policy, evaluate, look at what happened.

    Args:
        model: the model; it is trained in place, on the device its parameters are on (with Accelerate: on its device).
        data: :class:`Data`, or a training loader.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None: cross-entropy for integer class targets, and
            ``output.loss`` for batches that are dicts.
        optimizer: an optimizer over the model's parameters, or a function ``param_groups -> optimizer`` that gets one
            group per layer group; None: SGD with momentum 0.9.
        metrics: ``{name: function(outputs, targets) -> number}`` or a list of functions, averaged over samples;
            objects with ``update``, ``compute`` and ``reset``, such as those of torchmetrics, compute themselves. Where
            a batch is a dict they get the model's output and the whole batch.
        accelerator: your own ``accelerate.Accelerator``; None: one is made where several processes run together or a
            mixed precision is asked for. One process in full precision gives the same bits with and without.
        accumulation_steps: batches per update; None: what the accelerator says, else 1.
        mixed_precision: "no", "bf16" or "fp16"; None: what the accelerator or ``accelerate launch`` says.
        clip: largest norm over all gradients, or "auto" to clip only what stands out among the recent norms.
        compile: train and evaluate through ``torch.compile``; a dict holds its options.
        on_divergence: "raise", or "rollback": go back to the beginning of the epoch and on with half the rate, up to
            five times; holds a second copy of weights and optimizer state.
        layer_groups: modules or parameters in groups from the input to the output, for `freeze` and for rates of their
            own; None: the groups of `optimizer`.
        progress: True, False, or "auto": a bar where standard error is a terminal, on the first rank.

    Attributes:
        model, data, optimizer, loss_fn, metrics: as given, or made from it.
        history: the :class:`History` of all fits so far, also of one that ended early.
        runtime: processes, device and precision.
        run: the fit in progress, None between two.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work.
        ArgumentError: an argument has a value that cannot work, such as an optimizer of another model's parameters.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(400, 2)
        >>> data = Data.from_arrays(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long(), batch_size=32)
        >>> model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> learn = Learner(model, data, metrics={"accuracy": lambda o, t: (o.argmax(1) == t).float().mean()})
        >>> _ = learn.lr_find()
        >>> history = learn.fit_one_cycle(15)
        >>> history.num_steps, learn.evaluate()["accuracy"] > 0.9
        (150, True)
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        loss_fn: LossFunction | None = None,
        optimizer: Optimizer | OptimizerFactory | None = None,
        metrics: Mapping[str, Metric] | Sequence[Metric] = (),
        accelerator: Any = None,
        accumulation_steps: int | None = None,
        mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
        clip: float | Literal["auto"] | None = None,
        compile: bool | Mapping[str, Any] = False,
        on_divergence: Literal["raise", "rollback"] = "raise",
        layer_groups: Sequence[Any] | None = None,
        progress: Progress = "auto",
    ) -> None:
        instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model that is to be trained")
        one_of("on_divergence", on_divergence, ("raise", "rollback"))
        check_progress(progress)
        check_loss_fn(loss_fn)
        self.runtime = Runtime(accelerator, mixed_precision)
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.runtime.place(self.model)
        self._data = data if isinstance(data, Data) else Data(data)
        self.own_data = Data(
            self.runtime.shard(self.data.train_loader, is_even=True),
            self.runtime.shard(self.data.valid_loader, is_even=False),
        )
        self.optimizer = make_optimizer(
            unwrapped(optimizer),
            self.model,
            check_layer_groups(layer_groups, self.model),
        )
        self.loss_fn = class_loss if loss_fn is None else loss_fn
        self.metrics = check_metrics(metrics, self.model)
        self.clip = make_clip(clip)
        self.progress = progress
        self.history = History()
        self.calls = Calls()
        self.run = None
        self.range_test = None
        self.snapshots = None
        self.start = None
        self._accumulation_steps = (
            self.runtime.accumulation_steps
            if accumulation_steps is None
            else whole("accumulation_steps", accumulation_steps, minimum=1, way_out="1 updates after every batch")
        )
        self._compiled: nn.Module | None = None
        if compile:
            options = dict(compile) if isinstance(compile, Mapping) else {}
            self._compiled = torch.compile(self.model, **options)  # type: ignore[assignment]
        self._on_divergence = on_divergence
        self.freezes_batch_norm = False
        self._wrapped: tuple[list[bool], nn.Module] | None = None
        self.interrupted = None
        self.own_directories = set()
        self.last_checkpoint = None
        self._last_fit: History | None = None
        self._fit_is_newer = False

    @classmethod
    def pretrained(
        cls, arch: Any, data: Any, *, num_outputs: int | Literal["auto"] | None = "auto", **options: Any
    ) -> "Learner":
        """Return a Learner of a pretrained model with a new head; all but the head is frozen.

        Args:
            arch: a timm name such as "timm/resnet18", a folder with a Hugging Face model, or a function that returns a
                model (called with ``pretrained=True`` or ``weights="DEFAULT"`` where it takes one of them).
            data: :class:`Data`, or a training loader.
            num_outputs: outputs of the new head; "auto": the classes in the training data; None keeps the model's head.
            options: keyword arguments of the Learner, such as ``metrics=``.

        Raises:
            ArgumentError: the name is not known, or the model has no head that can be replaced.
            MissingExtraError: timm or transformers is not installed.
        """
        from cyclewise.training.layers import num_classes
        from cyclewise.training.pretrained import load_pretrained

        data = data if isinstance(data, Data) else Data(data)
        model, layer_groups = load_pretrained(
            arch, num_outputs=num_classes(data) if num_outputs == "auto" else num_outputs
        )
        options.setdefault("layer_groups", layer_groups)
        learn = cls(model, data, **options)
        if len(learn.optimizer.param_groups) > 1:
            learn.freeze()
        return learn

    @property
    def data(self) -> Data:
        """The data; other data need another Learner."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        raise ArgumentError(
            f"data must stay the same for the life of a Learner, got {describe(data)}; go on with the same model in "
            "another one, cw.Learner(learn.model, data, optimizer=learn.optimizer)"
        )

    # -- finding and fitting ----------------------------------------------------------------------------------------

    def lr_find(self, **options: Any) -> RangeTest:
        """Run a range test from the present weights, leave no trace, and keep its rate for `fit_one_cycle`.

        It uses the Learner's own step: its clipping, accumulation and precision. The ratios between the rates of the
        layer groups are kept.

        Args:
            options: of :func:`cyclewise.lr_find`, such as ``num_steps=300``; what the step is made of is the Learner's.

        A refusal is a record too.
        """
        check_options(options)
        check_precision(None, None, options.get("also", ()))
        options.setdefault("progress", self.progress)
        record = self.calls.range_test(options)
        if record is None:
            record = lr_find_by_step(self._step(), self.own_data.train_loader, **options)
            self.calls.add_range_test(record)
        self.range_test = record
        self._fit_is_newer = False
        return record

    @property
    def sched(self) -> Sched:
        """The pictures of the last range test and fit: ``sched.plot()``, ``plot_lr()`` and ``plot_loss()``."""
        return Sched(self.range_test, self._last_fit, shows_fit=self._fit_is_newer)

    def fit(
        self, policy: Policy | Sequence[Policy], *, callbacks: Sequence[Callback] = (), wd: float | None = None
    ) -> History:
        """Train for ``policy.total_steps`` steps, with the policy's values at each.

        Args:
            policy: a policy for all parameter groups, or a list of one per group, of equal `total_steps`.
            callbacks: hooks, called in order; a :class:`Checkpoint` comes after the others.
            wd: weight decay during this fit, for the groups that have one (for all, if none has); put back afterwards.

        Returns:
            the record of this fit; ``learn.history`` holds all of them. After :meth:`resume`, a fit that had ended
            returns its stored record at once.

        Raises:
            DivergedError: the training loss stopped being finite; the history up to there is kept.
            PolicyError: the policy does not fit the optimizer.
            CheckpointError: after a resume, the fit is not the one that was saved; or a :class:`Checkpoint` has the
                directory of another run.
        """
        policies = as_policies(policy)
        check_callbacks(callbacks)
        finished = self.calls.finished_fit(as_text(policies, wd))
        if finished is not None:
            self._last_fit, self._fit_is_newer = finished.history, True
            for kept, state in zip(snapshots_in(callbacks), finished.snapshots, strict=False):
                kept.load_state_dict(state)
            saving.go_to(self, finished.places)
            return finished.history
        if self.run is not None:
            raise ArgumentError("fit() must not be called from a callback of a fit; end it first with learn.stop()")
        check_initialised(self.model)
        self.runtime.place(self.model)
        check_owned(self.optimizer, self.model)
        check_trains(self.optimizer)
        callbacks = checkpoints_last(callbacks, self)
        saved = self.interrupted
        groups_at_start = decay.hyperparameters(self.optimizer) if saved is None else saved["groups_at_start"]
        step = self._step()
        with ExitStack() as stack:
            stack.enter_context(decay.weight_decay(self.optimizer, wd, groups_at_start))
            run = Run(
                self.calls.num_fits + 1, step, policies, self.own_data, callbacks, self.runtime,
                groups_at_start=groups_at_start,
                wd=wd,
                can_undo=any(isinstance(callback, Checkpoint) for callback in callbacks),
            )  # fmt: skip
            self.run = run
            if saved is None:
                self.remember_start()
            stack.callback(self._end, run, callbacks)
            for callback in callbacks:
                callback.on_fit_start(self, run.total_steps)
            if saved is not None:
                run.load_state_dict(saved)
                # Only now: a call that was refused can be made again, corrected.
                self.interrupted = None
                if run.place.is_within and not run.place.can_resume_within:
                    warnings.warn(
                        "train_loader cannot be taken up in the middle of a pass, so this epoch's rest is skipped and "
                        "the fit goes on with a new pass; give the loader state_dict() and load_state_dict()",
                        UserWarning,
                        stacklevel=2,
                    )
            step.train_mode()
            self._train(run, callbacks)
            self.calls.add_fit(
                run.text, run.recorder.history(), places=saving.places(self),
                snapshots=[kept.state_dict() for kept in snapshots_in(callbacks)],
            )  # fmt: skip
            self.run = None
        assert self._last_fit is not None
        return self._last_fit

    def _train(self, run: Run, callbacks: Sequence[Callback]) -> None:
        run.step.on_gradients = [partial(c.on_gradients, self) for c in overriding(callbacks, "on_gradients")]
        run.step.on_gradients += first_looks(self.metrics.values(), self.data.valid_loader)
        try:
            with (
                interrupts_between_steps() as interrupts,
                progress_bar("training", run.total_steps, self.progress) as bar,
            ):
                run.train(
                    validate=partial(self._validate_in_fit, callbacks),
                    on_step_end=[partial(c.on_step_end, self) for c in overriding(callbacks, "on_step_end")],
                    on_epoch_end=[partial(callback.on_epoch_end, self) for callback in callbacks],
                    rolls_back=self._on_divergence == "rollback",
                    interrupts=interrupts,
                    bar=bar,
                )
        except KeyboardInterrupt:
            if run.boundary.go_back():
                for callback in callbacks:
                    callback.on_interrupt(self)
            raise
        except DivergedError as error:
            error.checkpoint = self.last_checkpoint
            if error.checkpoint is not None:
                error.add(f"the last good checkpoint is {str(error.checkpoint)!r}")
            raise

    def _end(self, run: Run, callbacks: Sequence[Callback]) -> None:
        if run.has_begun:  # one that was refused is no part of the history
            self._last_fit = run.recorder.history()
            self._fit_is_newer = True
            self.history = self.history.followed_by(self._last_fit)
        if run.sets_decay:
            decay.put_back(self.optimizer, run.groups_at_start)
        end_all(callbacks, self, run)

    def steps_in(self, name: str, epochs: float) -> int:
        """Return the updates in so many epochs, at least 1; `name` is the argument's in a message."""
        return steps_in_epochs(name, epochs, -(-self.own_data.steps_per_epoch // self._accumulation_steps))

    def stop(self, reason: str = "asked to") -> None:
        """End the running fit after the present step; for callbacks."""
        if self.run is not None:
            self.run.stop_reason = reason

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return device_of(self.model)

    @property
    def num_steps(self) -> int:
        """Updates made so far, over all fits."""
        return self.history.num_steps + (0 if self.run is None else self.run.num_steps)

    def _validate_in_fit(self, callbacks: Sequence[Callback]) -> dict[str, float]:
        with ExitStack() as stack:
            for callback in callbacks:
                callback.on_validation_start(self)
                stack.callback(callback.on_validation_end, self)
            return self._validate()

    # -- the step ---------------------------------------------------------------------------------------------------

    def _forward(self) -> nn.Module:
        return self.model if self._compiled is None else self._compiled

    def _step(self) -> Step:
        trains = [parameter.requires_grad for parameter in self.model.parameters()]
        if self._wrapped is None or self._wrapped[0] != trains:
            self._wrapped = (trains, self.runtime.wrap(self._forward()))
        return Step(
            self._wrapped[1],
            self.optimizer,
            self.loss_fn,
            accumulation_steps=self._accumulation_steps,
            autocast_dtype=self.runtime.autocast_dtype,
            scaler=self.runtime.scaler,
            clip=self.clip,
            kept_in_eval=frozen_batch_norms(self.model) if self.freezes_batch_norm else (),
        )


ConvLearner = Learner
