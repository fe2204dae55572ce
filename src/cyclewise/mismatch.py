"""What does not fit a training step: a batch its model or its loss, a loss that is none, a precision that is none.

A batch is refused with both shapes and the way out. An exception of the user's own loss stays the same object and gets
a note; one of torch's own losses, which often name neither shape nor type, becomes an :class:`ArgumentError` with both.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError, CyclewiseError

# Losses that take the mean over elements, and broadcast shapes that differ instead of refusing them.
_ELEMENTWISE_FUNCTIONS = frozenset({F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss})
_ELEMENTWISE_MODULES = frozenset({nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss})
_AUTOCAST_DTYPES = (torch.float16, torch.bfloat16)
# Not their subclasses: a device that is out of memory, for one, has nothing to do with shapes.
_ABOUT_ARGUMENTS = frozenset({RuntimeError, ValueError, IndexError, TypeError, NotImplementedError})


def shape(value: Any) -> str:
    """Return what a batch item looks like, for a message.

    >>> shape(torch.zeros(2, 3))
    'torch.float32 of shape (2, 3)'
    """
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_loss_fn(loss_fn: Any) -> None:
    """Raise :class:`ArgumentTypeError` unless `loss_fn` is a function of outputs and targets, or None.

    A class can be called too: ``nn.CrossEntropyLoss(outputs, targets)`` makes a loss of odd settings, or fails in a way
    that blames the targets.
    """
    if isinstance(loss_fn, type):
        name = loss_fn.__name__
        call = f"nn.{name}()" if _is_torchs(loss_fn) else f"{name}()"
        raise ArgumentTypeError(
            f"loss_fn must be a function (outputs, targets) -> scalar tensor, got the class {name}; "
            f"pass an instance of it, {call}"
        )
    if loss_fn is not None and not callable(loss_fn):
        raise ArgumentTypeError(
            f"loss_fn must be a function (outputs, targets) -> scalar tensor, got {describe(loss_fn)}; "
            "pass for example torch.nn.functional.cross_entropy"
        )


def check_autocast_dtype(dtype: Any) -> None:
    """Raise :class:`ArgumentError` unless `dtype` is one that ``torch.autocast`` lowers the precision to, or None.

    Given another one torch goes on in full precision, with a warning that shows once.
    """
    if dtype is not None and dtype not in _AUTOCAST_DTYPES:
        got = str(dtype) if isinstance(dtype, torch.dtype) else describe(dtype)
        raise ArgumentError(
            f"autocast_dtype must be torch.float16 or torch.bfloat16, got {got}; "
            "pass torch.bfloat16, or None for full precision"
        )


def is_elementwise(loss_fn: Any) -> bool:
    """Return whether `loss_fn` is one of torch's losses that broadcast outputs and targets.

    >>> is_elementwise(F.mse_loss), is_elementwise(nn.L1Loss()), is_elementwise(F.cross_entropy)
    (True, True, False)
    """
    return type(loss_fn) in _ELEMENTWISE_MODULES or (
        type(loss_fn) is type(F.mse_loss) and loss_fn in _ELEMENTWISE_FUNCTIONS
    )


def refuse_broadcast(loss_fn: Any, outputs: Any, targets: Any) -> None:
    """Refuse the pair ``[N, 1]`` and ``[N]``, of which torch would compare all N * N combinations with a warning.

    Raises:
        ArgumentError: outputs and targets have different shapes.
    """
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.shape != targets.shape:
        raise ArgumentError(
            f"targets must have the shape of the outputs for {_name(loss_fn)}, got outputs {shape(outputs)} and "
            f"targets {shape(targets)}; reshape one of them, for example targets[:, None] or outputs.squeeze(1)"
        )


def explain(error: Exception, loss_fn: Any, outputs: Any, targets: Any) -> None:
    """Say for which outputs and targets `loss_fn` raised `error`; the caller raises it again afterwards.

    Raises:
        ArgumentError: the loss is one of torch's own.
    """
    if isinstance(error, CyclewiseError):
        return
    if type(error) in _ABOUT_ARGUMENTS and _is_torchs(loss_fn):
        raise ArgumentError(
            f"targets must fit the outputs and {_name(loss_fn)}, got outputs {shape(outputs)} and targets "
            f"{shape(targets)}{_values(targets)}, of which torch says: {error}; {_way_out(loss_fn, targets)}"
        ) from error
    add_note(error, f"raised by loss_fn for outputs {shape(outputs)} and targets {shape(targets)}")


def explain_model(error: Exception, model: Any, inputs: Any) -> None:
    """Note at `error`, which the model raised, what its inputs were; the caller raises it again afterwards."""
    if isinstance(error, CyclewiseError):
        return
    text = f"raised by the model for inputs {shape(inputs)}"
    if isinstance(inputs, Tensor) and isinstance(model, nn.Module):
        dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
        is_number = inputs.is_floating_point() or inputs.dtype == torch.uint8  # and no index into an embedding
        if is_number and dtypes and inputs.dtype not in dtypes:
            names = sorted(map(str, dtypes))
            text += f", while its parameters are {' and '.join(names)}; convert the inputs, as with .to({names[0]})"
    add_note(error, text)


def refuse_other_device(batch: Any, device: torch.device) -> None:
    """Refuse tensors that are not on the model's device, which here is the CPU.

    Raises:
        ArgumentError: there is one.
    """
    other = _other_device(batch, device)
    if other is not None:
        raise ArgumentError(
            f"batches must be on the model's device, {str(device)!r}, got a tensor on {str(other)!r}; "
            "move the model before the Learner or the optimizer is made, or the batches, with .to(device)"
        )


def add_note(error: Exception, text: str) -> None:
    """Add a note to an exception that passes through unchanged, once; Python 3.10 has no notes."""
    # One and the same object may be raised again and again.
    if hasattr(error, "add_note") and text not in getattr(error, "__notes__", ()):
        # Nothing that goes wrong here may take its place.
        with suppress(Exception):
            error.add_note(text)


def scalar(loss: Any) -> Tensor:
    """Return a loss as a tensor without dimensions.

    Raises:
        ArgumentError: it is no tensor, or one of several numbers.
    """
    if not isinstance(loss, Tensor) or (loss.ndim and loss.numel() != 1):
        is_tensor = isinstance(loss, Tensor)
        got = f"a tensor of shape {tuple(loss.shape)}" if is_tensor else describe(loss)
        way_out = (
            'average it, for example reduction="mean"' if is_tensor else "return the loss alone, and not its .item()"
        )
        raise ArgumentError(f"loss_fn must return a scalar tensor, got {got}; {way_out}")
    return loss.reshape(()) if loss.ndim else loss


def explain_backward(error: Exception, loss: Tensor) -> None:
    """Say what the matter is with a loss that has no gradient; the caller raises `error` again afterwards.

    Raises:
        ArgumentError: it has none.
    """
    if not loss.requires_grad:
        raise ArgumentError(
            "loss_fn must return a loss that depends on a parameter that is trained, got one without a gradient; "
            "call requires_grad_(True) on what should be trained, and leave detach() and no_grad() out"
        ) from error


def _other_device(value: Any, device: torch.device) -> torch.device | None:
    if isinstance(value, Tensor):
        return value.device if value.device.type != device.type else None
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((other for item in value if (other := _other_device(item, device)) is not None), None)
    return None


def _is_torchs(loss_fn: Any) -> bool:
    loss_fn = getattr(loss_fn, "func", loss_fn)  # what functools.partial holds
    module = loss_fn.__module__ if hasattr(loss_fn, "__name__") else type(loss_fn).__module__
    return isinstance(module, str) and module.startswith("torch.nn.")


def _name(loss_fn: Any) -> str:
    loss_fn = getattr(loss_fn, "func", loss_fn)
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__))


def _values(targets: Any) -> str:
    is_whole = isinstance(targets, Tensor) and not (targets.is_floating_point() or targets.is_complex())
    if not is_whole or not targets.numel() or targets.dtype == torch.bool or targets.device.type != "cpu":
        return ""
    return f" with values from {int(targets.min())} to {int(targets.max())}"


def _way_out(loss_fn: Any, targets: Any) -> str:
    if isinstance(targets, Mapping):
        return "for a batch that is a dict pass a function (output, batch) -> loss, or None to take output.loss"
    if _name(loss_fn).lower().replace("_", "") in ("crossentropy", "crossentropyloss", "nllloss"):
        return "pass class indices from 0 to C - 1, torch.int64 of shape [N], for outputs [N, C]"
    return "give both the same shape and a floating point type, for example targets.float()"
