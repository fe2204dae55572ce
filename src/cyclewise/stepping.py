"""One optimizer update from a batch: the one place for unpacking, autocast, scaler, accumulation and closures.

Shared by the range test, the measurements and the Learner, so that they all mean the same by "a step". A step is one
optimizer update, made from `accumulation_steps` batches whose losses are averaged.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise import mismatch
from cyclewise._validation import describe, instance, whole
from cyclewise.clipping import Clip
from cyclewise.errors import ArgumentError, DivergedError

LossFunction = Callable[..., Tensor]
# The smallest normal number of single precision. Below it a smaller scale is rounded, in the end to 0 for ever, and a
# skipped update would no longer be seen by a scale that came down.
_LEAST_SCALE = torch.finfo(torch.float32).tiny
_NO_GRAPH = "does not require grad"


class Step:
    """Make one optimizer update from the next `accumulation_steps` batches.

    Args:
        model: the model; its mode (train, eval) is left as it is.
        optimizer: any torch optimizer; one whose ``step`` needs a closure (LBFGS) gets one.
        loss_fn: ``loss_fn(outputs, targets)`` returning a scalar tensor; None takes ``output.loss`` of a model that is
            called with a dict batch.
        accumulation_steps: batches per update, at least 1; each counts the same.
        autocast_dtype: run forward and loss under ``torch.autocast`` in ``torch.bfloat16`` or ``torch.float16``.
        scaler: a ``torch.amp.GradScaler`` for float16; it may skip an update, see :attr:`skipped`.
        clip: what is done to the gradients before the update, such as :class:`~cyclewise.clipping.NormClip`.
        kept_in_eval: modules that :meth:`train_mode` leaves in eval mode, such as the BatchNorm of frozen layers.

    Attributes:
        loss_fn: the loss function.
        on_gradients: functions that are called with the batches when the gradients of an update are complete, before
            clipping and the update; they must not change what they find.
        autocast_dtype, scaler, clip: as given; a scaler that is switched off is None.
        skipped: whether the scaler skipped the last update, because a gradient was not finite.
        is_updating: whether the last call has got further than forward and backward passes: to those who look at the
            gradients, the clipping, the optimizer, the scaler. Set back by whoever has noted what came of it.

    Raises:
        ArgumentTypeError: `optimizer` is no torch optimizer, or `loss_fn` is no function.
        ArgumentError: `accumulation_steps` is not a whole number of at least 1, or `autocast_dtype` another precision.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> step = Step(model, torch.optim.SGD(model.parameters(), lr=0.25), nn.functional.mse_loss)
        >>> step([(torch.tensor([[2.0]]), torch.tensor([[0.0]]))]).item()  # the loss before the update
        4.0
        >>> model.weight.item()  # 1 - 0.25 * 8
        -1.0
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction | None,
        *,
        accumulation_steps: int = 1,
        autocast_dtype: torch.dtype | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        clip: Clip | None = None,
        kept_in_eval: Sequence[nn.Module] = (),
    ) -> None:
        instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model that is to be trained")
        instance(
            "optimizer",
            optimizer,
            Optimizer,
            "a torch.optim.Optimizer",
            way_out="make one first, for example torch.optim.SGD(model.parameters(), lr=0.1)",
        )
        mismatch.check_loss_fn(loss_fn)
        mismatch.check_autocast_dtype(autocast_dtype)
        self.model = model
        self.optimizer = optimizer
        self.accumulation_steps = whole(
            "accumulation_steps", accumulation_steps, minimum=1, way_out="pass 1 for an update after every batch"
        )
        self.skipped = False
        self.is_updating = False
        self.loss_fn = loss_fn
        self.on_gradients: list[Callable[[Sequence[Any]], None]] = []
        self.clip = clip
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.autocast_dtype = autocast_dtype
        self._kept_in_eval = tuple(kept_in_eval)
        # DistributedDataParallel sums gradients over the ranks in every backward pass but those under no_sync.
        self._no_sync = getattr(model, "no_sync", None)
        self._needs_closure = needs_closure(optimizer)
        self.device = device_of(model)
        self._has_placed = False

    def __call__(self, batches: Sequence[Any]) -> Tensor:
        """Update once from `batches` and return their mean loss before the update, a detached scalar tensor.

        Raises:
            DivergedError: the scaler has come down to a scale of 0.
        """
        if self._needs_closure:
            return self._step_with_closure(batches)
        loss = self._gradients(batches)
        if self.scaler is None:
            self.optimizer.step()
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            now = self.scaler.get_scale()
            self.skipped = now < scale
            if now < _LEAST_SCALE:
                raise DivergedError(
                    f"the scale of the gradient scaler must stay above {_LEAST_SCALE:.1g}, got {now}: the gradients "
                    'are not finite at any scale; look for NaN in the inputs, or train with mixed_precision="bf16"'
                )
        return loss

    def train_mode(self) -> None:
        """Put the model into train mode, but for what is kept in eval mode."""
        self.model.train()
        for module in self._kept_in_eval:
            module.eval()

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of one batch, with its graph."""
        batch = self.placed(batch)
        if self.autocast_dtype is None:
            return batch_loss(self.model, self.loss_fn, batch)
        with self.precision():
            return batch_loss(self.model, self.loss_fn, batch)

    def placed(self, batch: Any) -> Any:
        """Return the batch on the model's device.

        Raises:
            ArgumentError: the model is on the CPU, and the first batch is not.
        """
        if self.device.type != "cpu":
            return to_device(batch, self.device)
        if not self._has_placed:
            mismatch.refuse_other_device(batch, self.device)
            self._has_placed = True
        return batch

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context that forward and loss run in."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def _gradients(self, batches: Sequence[Any]) -> Tensor:
        self.optimizer.zero_grad()
        if len(batches) == 1:
            loss = self.loss(batches[0])
            self._backward(loss)
            total = loss.detach()
        else:
            parts = []
            for i, batch in enumerate(batches):
                with nullcontext() if self._no_sync is None or i == len(batches) - 1 else self._no_sync():
                    loss = self.loss(batch) / len(batches)
                    self._backward(loss)
                parts.append(loss.detach())
            total = torch.stack(parts).sum()
        self.is_updating = True
        for look in self.on_gradients:
            look(batches)
        if self.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            self.clip([p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None])
        return total

    def _backward(self, loss: Tensor) -> None:
        try:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            mismatch.explain_backward(error, loss)
            raise

    def _step_with_closure(self, batches: Sequence[Any]) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Tensor:
            with torch.enable_grad():
                losses.append(self._gradients(batches))
            return losses[-1]

        self.is_updating = True
        if self.scaler is None:
            self.optimizer.step(closure)  # type: ignore[arg-type]
        else:
            self.scaler.step(self.optimizer, closure)  # raises torch's own explanation: scaling and closures don't mix
        return losses[0]


def batch_loss(model: Callable[..., Any], loss_fn: LossFunction | None, batch: Any) -> Tensor:
    """Return the scalar loss of `model` on one batch.

    A batch is ``(inputs, targets)``: a tensor of inputs is passed as ``model(x)``, a tuple or list as ``model(*x)``, a
    dict as ``model(**x)``; with more than two items the last is the target. A dict batch is passed as
    ``model(**batch)`` and its loss is ``loss_fn(output, batch)``, or ``output.loss`` where `loss_fn` is None. A model
    or loss that takes a derivative itself may do so under ``torch.no_grad`` too.

    Raises:
        ArgumentError: the batch, the output or the loss has a shape that cannot work.

    Example:
        >>> add = lambda a, b: a + b
        >>> batch_loss(add, nn.functional.mse_loss, (torch.ones(2), torch.ones(2), torch.zeros(2)))
        tensor(4.)
    """
    loss: Tensor = _with_derivatives_of_its_own(lambda: _batch_loss(model, loss_fn, batch))
    return loss


def _batch_loss(model: Callable[..., Any], loss_fn: LossFunction | None, batch: Any) -> Tensor:
    if isinstance(batch, Mapping):
        outputs, targets = model(**batch), batch
        if loss_fn is None:
            return mismatch.scalar(own_loss(outputs))
    else:
        if loss_fn is None:
            raise ArgumentError(
                "loss_fn must be a function for batches of (inputs, targets), got None; "
                "pass for example torch.nn.functional.cross_entropy"
            )
        inputs, targets = split_batch(batch)
        try:
            outputs = forward(model, inputs)
        except Exception as error:
            mismatch.explain_model(error, model, inputs)
            raise
        if mismatch.is_elementwise(loss_fn):
            mismatch.refuse_broadcast(loss_fn, outputs, targets)
    try:
        loss = loss_fn(outputs, targets)
    except Exception as error:
        mismatch.explain(error, loss_fn, outputs, targets)
        raise
    return mismatch.scalar(loss)


def forward(model: Callable[..., Any], inputs: Any) -> Any:
    """Return ``model(x)`` for a tensor, ``model(*x)`` for a tuple or list, ``model(**x)`` for a dict of inputs."""
    if isinstance(inputs, (tuple, list)):
        return _with_derivatives_of_its_own(lambda: model(*inputs))
    if isinstance(inputs, Mapping):
        return _with_derivatives_of_its_own(lambda: model(**inputs))
    return _with_derivatives_of_its_own(lambda: model(inputs))


def _with_derivatives_of_its_own(compute: Callable[[], Any]) -> Any:
    # Force fields, physics-informed losses and gradient penalties differentiate on the way, which they cannot where no
    # graph is kept: then it is kept for them, and let go at once.
    try:
        return compute()
    except RuntimeError as error:
        if torch.is_grad_enabled() or not lacks_graph(error):
            raise
    with torch.enable_grad():
        return detached(compute())


def detached(value: Any) -> Any:
    """Return a model's output without its graph; of other objects than containers and tensors the object itself.

    >>> detached((torch.ones(1, requires_grad=True) * 2, {"a": 1}))
    (tensor([2.]), {'a': 1})
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(detached, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(detached, value))
    if isinstance(value, MutableMapping):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = detached(item)
        return made
    return value


def lacks_graph(error: RuntimeError) -> bool:
    """Return whether a derivative was asked for where nothing was kept to take it of."""
    return _NO_GRAPH in str(error)


def split_batch(batch: Any, *, name: str = "train_loader") -> tuple[Any, Any]:
    """Return ``(inputs, targets)`` of a tuple or list batch; the last item is the target; `name` is whose batch it is.

    Raises:
        ArgumentError: the batch is not a tuple or list of at least two items.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = (
            f"a {type(batch).__name__} of {len(batch)} item(s)" if isinstance(batch, (tuple, list)) else describe(batch)
        )
        raise ArgumentError(
            f"{name} must yield batches (inputs, targets) or dicts, got {got}; have it yield both, for an autoencoder "
            f"(x, x){', or pass train_step= with your own update' if name == 'train_loader' else ''}"
        )
    return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`; tuples, lists, dicts and named tuples keep their type."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        moved = {key: to_device(value, device) for key, value in batch.items()}
        return type(batch)(moved) if type(batch) is not dict else moved  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer; the CPU where it has none."""
    tensor: Tensor | None = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer itself where it is wrapped, as Accelerate's ``prepare`` wraps one."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, Optimizer) else optimizer


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether ``optimizer.step`` cannot be called without a closure, as LBFGS's cannot.

    >>> needs_closure(torch.optim.LBFGS([torch.zeros(1)])), needs_closure(torch.optim.SGD([torch.zeros(1)], lr=1.0))
    (True, False)
    """
    closure = inspect.signature(type(unwrapped(optimizer)).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode without gradients while the block runs; each module gets its own mode back.

    A module that does more in ``train`` than to note its mode (it merges or parts weights, drops what it has kept) is
    asked to do so.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     [part.training for part in model]
    [False, False]
    >>> [part.training for part in model]
    [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            if module.training != training and type(module).train is not nn.Module.train:
                module.train(training)
        for module, training in modes:
            module.training = training


def own_loss(output: Any) -> Tensor:
    """Return the loss that a model has put into its output, as those of Hugging Face do.

    Raises:
        ArgumentError: there is none.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise ArgumentError(
            "loss_fn must be a function (output, batch) -> scalar tensor when the model's output has no .loss, "
            f"got None and an output of type {type(output).__name__}; pass loss_fn="
        )
    return loss
