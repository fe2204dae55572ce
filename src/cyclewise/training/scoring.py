"""Scores on held-out batches: loss and metrics, streamed over batches and ranks; predictions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.landscape.parts import batch_size
from cyclewise.mismatch import add_note, shape
from cyclewise.stepping import Step, batch_loss, detached, evaluating, forward, split_batch
from cyclewise.training.data import Data
from cyclewise.training.metrics import DICT_BATCHES
from cyclewise.training.parts import Parts
from cyclewise.training.runtime import Runtime

Metric = Callable[[Any, Any], Any]

# What the loss is called in the scores, and in the records of epochs.
_TAKEN = ("loss", "train_loss", "valid_loss")


@runtime_checkable
class StreamingMetric(Protocol):
    """A metric with a state of its own, such as any of torchmetrics; it synchronises its ranks itself."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Take a batch in."""

    def compute(self) -> Any:
        """Return the value over all batches since the last reset."""

    def reset(self) -> None:
        """Forget all batches."""


class ScoreMethods(Parts):
    """What a Learner can be asked about how good it is."""

    def evaluate(self) -> dict[str, float]:
        """Return the loss and the metrics on the validation data, in eval mode, averaged over samples and ranks.

        Raises:
            ArgumentError: there is no validation data.
        """
        if self.data.valid_loader is None:
            raise ArgumentError(
                "data must have a valid_loader to evaluate on, got None; "
                "pass Data(train_loader, valid_loader) or valid_fraction=0.2"
            )
        return self._validate()

    def predict(self, inputs: Any = None) -> Any:
        """Return the model's outputs in eval mode, on the CPU, joined along the first dimension.

        Every rank predicts everything.

        Args:
            inputs: a tensor or array of samples, a tuple or dict of them, or a loader of batches, whose targets are
                ignored; None: the validation data.

        Raises:
            ArgumentError: nothing is given, and there is no validation data.
            ArgumentTypeError: what is given is neither samples nor batches.
        """
        loader = self.data.valid_loader if inputs is None else inputs
        if loader is None:
            raise ArgumentError("inputs must be given where there is no validation data, got None; pass a tensor")
        if isinstance(loader, (Tensor, tuple, dict)) or hasattr(loader, "__array__") or _is_of_numbers(loader):
            loader = Data.batches_of(loader)
        if isinstance(loader, str) or not isinstance(loader, Iterable):
            raise ArgumentTypeError(
                f"inputs must be an array of samples or a loader of batches, got {describe(loader)}; pass a tensor"
            )
        return predict(self._step(), self._forward(), loader)

    def _validate(self) -> dict[str, float]:
        if self.own_data.valid_loader is None:
            return {}
        return score(self._step(), self._forward(), self.metrics, self.own_data.valid_loader, self.runtime)


def check_metrics(metrics: Any, model: nn.Module) -> dict[str, Metric]:
    """Return metrics by name; those that are modules are moved to the model's device.

    Raises:
        ArgumentTypeError: they are no dict and no list, or one cannot be called.
        ArgumentError: two have one name, or one that the losses have.
    """
    if isinstance(metrics, (Mapping, nn.ModuleDict)):
        named = list(metrics.items())
    elif isinstance(metrics, Iterable) and not isinstance(metrics, str):
        named = [(getattr(metric, "__name__", type(metric).__name__), metric) for metric in metrics]
    else:
        raise ArgumentTypeError(
            f"metrics must be a dict of functions by name, or a list of functions, got {describe(metrics)}; "
            "pass for example {'accuracy': cyclewise.accuracy}"
        )
    for name, metric in named:
        if not callable(metric) and not isinstance(metric, StreamingMetric):
            raise ArgumentTypeError(
                f"metrics[{name!r}] must be a function (outputs, targets) -> number, got {describe(metric)}; "
                "pass for example {'accuracy': cyclewise.accuracy}"
            )
        if name in _TAKEN:
            raise ArgumentError(f"metrics must not contain the name {name!r}, got it; the loss is always reported")
        if [other for other, _ in named].count(name) > 1:
            raise ArgumentError(f"metrics must have names of their own, got {name!r} twice; pass a dict with names")
        if isinstance(metric, nn.Module):
            metric.to(next((parameter.device for parameter in model.parameters()), torch.device("cpu")))
    return dict(named)


def score(step: Step, model: nn.Module, metrics: Mapping[str, Any], loader: Any, runtime: Runtime) -> dict[str, float]:
    """Return the mean loss and metrics over `loader` in eval mode.

    Functions are averaged over batches weighted by their samples, over all ranks; streaming metrics compute themselves.

    Raises:
        ArgumentError: the loader is empty.
    """
    names = ["loss", *(name for name, metric in metrics.items() if not isinstance(metric, StreamingMetric))]
    # Read after the last batch: each reading would make the loop wait for an accelerator.
    values: dict[str, list[tuple[Any, int]]] = {name: [] for name in names}
    num_samples = 0
    outputs: list[Any] = []

    def remember(*arguments: Any, **named: Any) -> Any:
        made = model(*arguments, **named)
        outputs[:] = [detached(made)]
        return made

    streaming = {name: metric for name, metric in metrics.items() if isinstance(metric, StreamingMetric)}
    for metric in streaming.values():
        metric.reset()
    with evaluating(model):
        for item in loader:
            batch = step.placed(item)
            with step.precision():
                loss = batch_loss(remember, step.loss_fn, batch)
            targets = batch if isinstance(batch, Mapping) else batch[-1]
            size = batch_size(batch) or count_samples(targets)
            num_samples += size
            values["loss"].append((loss, size))
            for name in names[1:]:
                value = _noted(name, metrics[name], outputs[0], targets)
                is_away = isinstance(value, Tensor) and value.ndim == 0 and value.device.type != "cpu"
                values[name].append((value if is_away else _number(name, value), size))
            for name, metric in streaming.items():
                _noted(name, metric.update, outputs[0], targets)
    sums = [sum(float(value) * size for value, size in values[name]) for name in names]
    *totals, total_samples = runtime.sum([*sums, float(num_samples)])
    if not total_samples:
        raise ArgumentError(
            "valid_loader must yield at least one batch, got an empty one; "
            "check the size of the data set, or pass None for no validation"
        )
    scores = {name: total / total_samples for name, total in zip(names, totals, strict=True)}
    for name, metric in streaming.items():
        scores[name] = _number(name, metric.compute())
        metric.reset()
    return {name: scores[name] for name in ("loss", *metrics)}


def predict(step: Step, model: nn.Module, loader: Any) -> Any:
    """Return the outputs of `model` in eval mode for all batches of `loader`, joined along the first dimension.

    A batch is ``(inputs, targets)``, whose targets are ignored, a dict, or a tensor of inputs. Outputs that are tensors
    come back as one tensor on the CPU, tuples and dicts of tensors as such.
    """
    parts = []
    with evaluating(model), step.precision():
        for item in loader:
            batch = step.placed(item)
            if isinstance(batch, Mapping):
                output = model(**batch)
            else:
                # A data set without targets yields lists of one item.
                has_one = isinstance(batch, (tuple, list)) and len(batch) == 1
                output = forward(
                    model, batch if isinstance(batch, Tensor) else (batch if has_one else split_batch(batch))[0]
                )
            parts.append(_on_cpu(output))
    if not parts:
        raise ArgumentError("inputs must hold at least one batch, got none; check the size of the data set")
    return _joined(parts)


def count_samples(targets: Any) -> int:
    """Return the samples of a batch by its targets, where its tensors do not agree; 1 where they do not say.

    >>> count_samples(torch.zeros(3, 2)), count_samples({"labels": torch.zeros(5)})
    (3, 5)
    """
    if isinstance(targets, Tensor):
        return len(targets) if targets.ndim else 1
    if isinstance(targets, Mapping):
        return next((count_samples(value) for value in targets.values() if isinstance(value, Tensor)), 1)
    return len(targets) if hasattr(targets, "__len__") else 1


def _noted(name: str, metric: Metric, outputs: Any, targets: Any) -> Any:
    try:
        return metric(outputs, targets)
    except Exception as error:
        about_dicts = f"; {DICT_BATCHES}" if isinstance(targets, Mapping) and DICT_BATCHES not in str(error) else ""
        add_note(
            error,
            f"raised by metrics[{name!r}] for outputs {shape(outputs)} and targets {shape(targets)}{about_dicts}",
        )
        raise


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        got = shape(value) if isinstance(value, Tensor) else repr(value)
        raise ArgumentError(
            f"metrics[{name!r}] must return one number, got {got}; average it, or return a part of it"
        ) from error


def _is_of_numbers(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, (int, float))


def _on_cpu(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float().cpu() if output.dtype in (torch.bfloat16, torch.float16) else output.cpu()
    if isinstance(output, Mapping):
        return {key: _on_cpu(value) for key, value in output.items() if isinstance(value, (Tensor, tuple, list))}
    if isinstance(output, (tuple, list)):
        return tuple(_on_cpu(value) for value in output)
    return output


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts) if first.ndim else torch.stack(parts)
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined([part[i] for part in parts]) for i in range(len(first)))
    return parts
