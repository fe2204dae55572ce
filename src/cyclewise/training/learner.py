"""The Learner: model, data, loss and optimizer together, with the article's calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer

from cyclewise._validation import describe, instance, non_negative, positive
from cyclewise.errors import ArgumentError, ArgumentTypeError, SuggestionError
from cyclewise.policies import OneCycle, Policy
from cyclewise.progress import Progress
from cyclewise.range_test import RangeTest, lr_find
from cyclewise.scheduler import PolicyLR
from cyclewise.stepping import LossFunction, Step, device_of
from cyclewise.training.callbacks import Callback
from cyclewise.training.data import Data
from cyclewise.training.history import History
from cyclewise.training.loop import Metric, Recorder, run_fit, score
from cyclewise.training.metrics import class_loss
from cyclewise.training.sched import Sched

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


class Learner:
    """Train a model: find a rate, fit by a policy, evaluate, look at what happened.

    Args:
        model: the model; it is trained in place, on the device its parameters are on.
        data: :class:`Data`, or a training loader.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None: cross-entropy for integer class targets.
        optimizer: an optimizer over the model's parameters, or a function ``param_groups -> optimizer``; None: SGD with
            momentum 0.9.
        metrics: ``{name: function(outputs, targets) -> number}`` or a list of functions, computed on validation batches
            and averaged over samples.
        progress: True, False, or "auto": a bar where standard error is a terminal.

    Attributes:
        model: the model.
        data: the data.
        optimizer: the optimizer.
        history: the :class:`History` of all fits so far, also of one that ended early.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work.
        ArgumentError: the optimizer does not own the model's parameters.

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
        progress: Progress = "auto",
    ) -> None:
        instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model that is to be trained")
        self.model = model
        self.data = data if isinstance(data, Data) else Data(data)
        self.optimizer = _optimizer(optimizer, model)
        self.loss_fn: LossFunction = class_loss if loss_fn is None else loss_fn
        self.metrics = _metrics(metrics)
        self.progress: Progress = progress
        self.history = History()
        self._range_test: RangeTest | None = None
        self._last_fit: History | None = None
        self._fit_is_newer = False

    def lr_find(self, **options: Any) -> RangeTest:
        """Run a range test from the present weights, leave no trace, and keep its rate for `fit_one_cycle`.

        Args:
            options: keyword arguments of :func:`cyclewise.lr_find`, such as ``num_steps=300``.

        Returns:
            the record; a refusal is a record too.
        """
        options.setdefault("progress", self.progress)
        self._range_test = lr_find(self.model, self.optimizer, self.loss_fn, self.data.train_loader, **options)
        self._fit_is_newer = False
        return self._range_test

    @property
    def sched(self) -> Sched:
        """The pictures of the last range test and fit: ``sched.plot()`` and ``sched.plot_lr()``."""
        return Sched(self._range_test, self._last_fit, shows_fit=self._fit_is_newer)

    def fit(self, policy: Policy | Sequence[Policy], *, callbacks: Sequence[Callback] = ()) -> History:
        """Train for ``policy.total_steps`` steps, with the policy's values at each.

        Args:
            policy: a policy for all parameter groups, or a list of one per group, of equal `total_steps`.
            callbacks: hooks, called in order.

        Returns:
            the record of this fit; ``learn.history`` holds all of them.

        Raises:
            DivergedError: the training loss stopped being finite; the history up to there is kept.
            PolicyError: the policy does not fit the optimizer.
        """
        policies = [policy] if isinstance(policy, Policy) else list(policy)
        lengths = {part.total_steps for part in policies}
        if len(lengths) != 1:
            raise ArgumentError(
                f"policy must have one total_steps for all groups, got {sorted(lengths)}; "
                "make the shorter ones longer with extend()"
            )
        total_steps = lengths.pop()
        scheduler = PolicyLR(self.optimizer, policy if isinstance(policy, Policy) else policies)
        fastest = max(policies, key=lambda part: float(part.lr(range(total_steps)).max()))
        recorder = Recorder(fastest, is_eager=device_of(self.model).type == "cpu")
        self.model.train()
        try:
            for callback in callbacks:
                callback.on_fit_start(self, total_steps)
            run_fit(
                Step(self.model, self.optimizer, self.loss_fn),
                scheduler,
                self.data.train_loader,
                total_steps=total_steps,
                recorder=recorder,
                validate=self._validate,
                on_step_end=[
                    partial(callback.on_step_end, self)
                    for callback in callbacks
                    if type(callback).on_step_end is not Callback.on_step_end
                ],
                on_epoch_end=[partial(callback.on_epoch_end, self) for callback in callbacks],
                progress=self.progress,
            )
        finally:
            self._last_fit = recorder.history()
            self._fit_is_newer = True
            self.history = self.history.followed_by(self._last_fit)
            for callback in callbacks:
                callback.on_fit_end(self)
        return self._last_fit

    def fit_one_cycle(
        self,
        cyc_len: float,
        max_lr: float | Sequence[float] | None = None,
        *,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        pct_start: float = 0.3,
        moms: tuple[float, float] | None = (0.95, 0.85),
        wd: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train with one cycle: the rate up and then far down, the momentum against it.

        Args:
            cyc_len: length of the cycle in epochs.
            max_lr: peak rate, one per group if a list; None takes the one that the last `lr_find` gave.
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

        Source: Smith, arXiv:1803.09820, section 4; the anneal and the arguments are fastai's.
        """
        epochs = positive("cyc_len", cyc_len, way_out="it counts epochs, for example 5")
        total_steps = max(1, round(epochs * self.data.steps_per_epoch))
        policies = [
            OneCycle(
                max_lr=rate,
                total_steps=total_steps,
                pct_start=pct_start,
                div_factor=div_factor,
                final_div_factor=final_div_factor,
                base_momentum=None if moms is None else _pair("moms", moms)[1],
                max_momentum=None if moms is None else moms[0],
            )
            for rate in self._peaks(max_lr)
        ]
        with _weight_decay(self.optimizer, wd):
            return self.fit(policies[0] if len(set(policies)) == 1 else policies, callbacks=callbacks)

    def evaluate(self) -> dict[str, float]:
        """Return the loss and the metrics on the validation data, in eval mode, averaged over samples.

        Raises:
            ArgumentError: there is no validation data.
        """
        if self.data.valid_loader is None:
            raise ArgumentError(
                "data must have a valid_loader to evaluate on, got None; "
                "pass Data(train_loader, valid_loader) or valid_fraction=0.2"
            )
        return self._validate()

    def _validate(self) -> dict[str, float]:
        if self.data.valid_loader is None:
            return {}
        return score(self.model, self.loss_fn, self.metrics, self.data.valid_loader)

    def _peaks(self, max_lr: float | Sequence[float] | None) -> list[float]:
        num_groups = len(self.optimizer.param_groups)
        if max_lr is None:
            if self._range_test is None:
                raise ArgumentError("max_lr must be a rate when no range test was run, got None; call learn.lr_find()")
            if self._range_test.max_lrs is None:
                self._range_test.policy(1)  # raises the refusal with its remedy
                raise SuggestionError("there is no learning rate to give")
            return list(self._range_test.max_lrs)
        if isinstance(max_lr, Sequence):
            if len(max_lr) != num_groups:
                raise ArgumentError(
                    f"max_lr must have one rate per parameter group ({num_groups}), got {len(max_lr)}; "
                    "pass one number for all groups"
                )
            return [positive("max_lr", rate, way_out="call learn.lr_find() for one") for rate in max_lr]
        return [positive("max_lr", max_lr, way_out="call learn.lr_find() for one")] * num_groups


ConvLearner = Learner


def _optimizer(optimizer: Any, model: nn.Module) -> Optimizer:
    if optimizer is None:
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    elif not isinstance(optimizer, Optimizer) and callable(optimizer):
        optimizer = optimizer([{"params": list(model.parameters())}])
    instance(
        "optimizer",
        optimizer,
        Optimizer,
        "a torch.optim.Optimizer or a function that returns one",
        way_out="pass for example torch.optim.SGD(model.parameters(), lr=0.1)",
    )
    assert isinstance(optimizer, Optimizer)
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    of_model = {id(parameter) for parameter in model.parameters()}
    if not owned <= of_model:
        raise ArgumentError(
            f"optimizer must own parameters of this model, got {len(owned - of_model)} of {len(owned)} that are not; "
            "make the optimizer from model.parameters(), after the last change of the model"
        )
    return optimizer


def _metrics(metrics: Any) -> dict[str, Metric]:
    if not isinstance(metrics, Mapping):
        metrics = {getattr(metric, "__name__", type(metric).__name__): metric for metric in metrics}
    for name, metric in metrics.items():
        if not callable(metric):
            raise ArgumentTypeError(
                f"metrics[{name!r}] must be a function (outputs, targets) -> number, got {describe(metric)}; "
                "pass for example {'accuracy': cyclewise.accuracy}"
            )
        if name == "loss":
            raise ArgumentError("metrics must not contain the name 'loss', got it; the loss is always reported")
    return dict(metrics)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ArgumentError(
            f"{name} must be two numbers, got {value!r}; "
            "pass (momentum at the ends, momentum at the peak), for example (0.95, 0.85)"
        )
    return value[0], value[1]


@contextmanager
def _weight_decay(optimizer: Optimizer, wd: float | None) -> Iterator[None]:
    if wd is None:
        yield
        return
    decay = non_negative("wd", wd, way_out="1e-4 is usual; None leaves the optimizer's own")
    if not all("weight_decay" in group for group in optimizer.param_groups):
        raise ArgumentError(
            f"wd must be None for an optimizer without weight decay, got {wd!r} for {type(optimizer).__name__}; "
            "leave it out, or use another optimizer"
        )
    before = [group["weight_decay"] for group in optimizer.param_groups]
    applies = [bool(value) or not any(before) for value in before]
    try:
        for group, is_decayed in zip(optimizer.param_groups, applies, strict=True):
            if is_decayed:
                group["weight_decay"] = decay
        yield
    finally:
        for group, value in zip(optimizer.param_groups, before, strict=True):
            group["weight_decay"] = value
