"""Snapshot ensembles: the models that one cyclic run left behind, and the average of what they say."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclewise._validation import describe, instance, whole
from cyclewise.copies import copied
from cyclewise.errors import ArgumentError
from cyclewise.loaders import Batches, check_loader
from cyclewise.mismatch import check_loss_fn
from cyclewise.progress import Bar, Progress, progress_bar
from cyclewise.state import Snapshot, preserve, seed_everything
from cyclewise.stepping import LossFunction, device_of, evaluating, forward, split_batch, to_device
from cyclewise.training.calibration import calibration_error
from cyclewise.training.data import ArrayLoader, Data, as_tensor
from cyclewise.training.mean_prediction import MeanPrediction
from cyclewise.training.scoring import Metric, StreamingMetric

# Small enough for any model that trains on batches of a usual size, large enough to keep a CPU busy.
_CHUNK_SIZE = 256
_SEED = 0
# What torch's losses leave out unless they are told otherwise: the padding of sequences, the unlabelled pixels.
_IGNORED_CLASS = -100


class Ensemble:
    """Average the predictions of the snapshots of one run.

    For a classifier (targets are class indices [N] or [N, ...], outputs are scores [N, C] or [N, C, ...]) the members'
    probabilities are averaged, ``p(c) = 1/K * sum over members of softmax(outputs)(c)``; for all else their outputs.
    Which of the two it is, is seen from a first batch of the data.

    Before a member with batch normalisation first speaks, its running statistics are computed anew over one pass of
    the training batches, as a cumulative average: those of the snapshot lag behind its weights. They are kept; the
    snapshots are not changed. The model is borrowed: after each call it is bit for bit what it was, and so are the
    loaders' generators. Every pass begins with the same seed, so that all members see the same batches.

    Args:
        model: the model that the snapshots were taken of; members are loaded into it, one after the other.
        states: the members' state dicts, oldest first, such as ``snapshots.states``.
        data: training batches for the statistics, validation batches to score.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``, for what is no classifier.
        metrics: ``{name: function(outputs, targets) -> number}``, averaged over samples, or objects with ``update``,
            ``compute`` and ``reset``; for a classifier the outputs are the logarithms of the averaged probabilities,
            for a batch that is a dict the targets are ``batch["labels"]``.
        takes_dicts: whether, of a batch that is a dict, metrics and `loss_fn` get the whole batch, as they do from a
            Learner, and where the model's output is no tensor the averages as ``output.logits``.
        progress: True, False, or "auto": a bar where standard error is a terminal.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work.
        ArgumentError: there are no snapshots.

    Source: Huang et al., arXiv:1704.00109, section 3. The statistics are those of Izmailov et al., arXiv:1803.05407,
    section 3.2, and of ``torch.optim.swa_utils.update_bn``.

    Example:
        >>> sure, unsure = ({"weight": torch.tensor([[weight], [0.0]])} for weight in (4.0, 0.0))
        >>> data = Data([(torch.ones(8, 1), torch.zeros(8).long())], [(torch.ones(2, 1), torch.zeros(2).long())])
        >>> ensemble = Ensemble(nn.Linear(1, 2, bias=False), [unsure, sure], data)
        >>> ensemble.predict(torch.ones(1, 1))
        tensor([[0.7410, 0.2590]])
        >>> [round(member["loss"], 3) for member in ensemble.members()], round(ensemble.evaluate()["loss"], 3)
        ([0.693, 0.018], 0.3)
        >>> print(ensemble.last(1))
        ensemble of 1 snapshot of a Linear
    """

    def __init__(
        self,
        model: nn.Module,
        states: Sequence[Mapping[str, Any]],
        data: Data,
        *,
        loss_fn: LossFunction | None = None,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
        takes_dicts: bool = False,
        progress: Progress = "auto",
    ) -> None:
        instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model of the snapshots")
        instance("states", states, Sequence, "a sequence of state dicts", way_out="pass snapshots.states")
        instance("data", data, Data, "a Data", way_out="pass Data(train_loader, valid_loader)")
        check_loss_fn(loss_fn)
        if not states:
            raise ArgumentError(
                "states must hold at least one snapshot, got none; call fit_sgdr(..., snapshots=True) first"
            )
        self._model = model
        self._data = data
        self._loss_fn = loss_fn
        self._metrics: dict[str, Any] = dict(metrics)
        self._takes_dicts = takes_dicts
        self._progress: Progress = progress
        self._members = [_Member(states[:], index) for index in range(len(states))]
        self._is_classifier: bool | None = None
        self._gives_tensors = True

    def __len__(self) -> int:
        return len(self._members)

    def __str__(self) -> str:
        return f"ensemble of {len(self)} snapshot{'s' * (len(self) > 1)} of a {type(self._model).__name__}"

    def last(self, k: int) -> "Ensemble":
        """Return the ensemble of the last `k` snapshots.

        Raises:
            ArgumentError: there are not so many.
        """
        number = whole("k", k, minimum=1, way_out="it counts snapshots, from the end")
        if number > len(self):
            raise ArgumentError(
                f"k must be at most the number of snapshots, got {number} of {len(self)}; "
                "pass a smaller one, or train for more cycles"
            )
        return self._of(self._members[-number:])

    def predict(self, inputs_or_loader: Any = None) -> Tensor:
        """Return the averaged predictions, in order, on the CPU.

        Args:
            inputs_or_loader: a tensor or array of inputs, or a tuple or dict of them, first dimension N, which are
                taken in chunks, NumPy's float64 as torch's default type; or an iterable of batches ``(inputs,
                targets)``, of inputs alone or of dicts, such as a DataLoader or a list; None: the validation batches.

        Returns:
            probabilities [N, C] or [N, C, ...] of a classifier, else outputs [N, ...].

        Raises:
            ArgumentError: there is no validation data to fall back on, the arrays have different lengths, or the
                model's output is no tensor.
            ArgumentTypeError: it is neither inputs nor batches.
        """
        is_inputs = isinstance(inputs_or_loader, (Tensor, np.ndarray, tuple, Mapping))
        loader = _chunks(inputs_or_loader) if is_inputs else self._loader(inputs_or_loader)
        batches = self._averages(loader)
        return torch.cat([average.exp() if self._is_classifier else average for average, _ in batches])

    def evaluate(self, loader: Any = None) -> dict[str, float]:
        """Return loss and metrics of the averaged predictions, in eval mode, averaged over samples.

        Args:
            loader: an iterable of batches; None: the validation batches.

        Returns:
            "loss": of a classifier the negative log-likelihood of the averaged probabilities, else `loss_fn` of the
            averaged outputs; each metric by its name; of a classifier also "calibration_error", see
            :func:`cyclewise.training.calibration.calibration_error`. Targets of -100 count in neither of the two.

        Raises:
            ArgumentError: there is no validation data, or batches are such that there is nothing to score with.
        """
        batches = self._averages(self._loader(loader))
        with preserve(), torch.no_grad():
            return self._scores(batches)

    def members(self, loader: Any = None) -> list[dict[str, float]]:
        """Return what :meth:`evaluate` returns, of each member alone, in the order of the snapshots."""
        return [self._of([member]).evaluate(loader) for member in self._members]

    def _of(self, members: "list[_Member]") -> "Ensemble":
        part = copy.copy(self)
        # The same objects, so that statistics are computed once for all ensembles that a member is in.
        part._members = members
        return part

    def _loader(self, loader: Any) -> Any:
        if loader is None:
            loader = self._data.valid_loader
        if loader is None:
            raise ArgumentError(
                "data must have a valid_loader to evaluate on, got None; "
                "pass Data(train_loader, valid_loader) or valid_fraction=0.2"
            )
        check_loader(loader, name="loader")
        return loader

    def _averages(self, loader: Any) -> "list[tuple[Tensor, Any]]":
        """Return average and targets of each batch; averages of a classifier are logarithms of probabilities."""
        has_statistics = any(_running(self._model))
        stale = {member for member in self._members if has_statistics and member.statistics is None}
        data, num_batches = self._data, _num_batches([loader] * len(self) + [self._data.train_loader] * len(stale))
        with (
            preserve(self._model, data=[data.train_loader, data.valid_loader, loader]) as snapshot,
            progress_bar("ensemble", num_batches, self._progress) as bar,
        ):
            if self._is_classifier is None:
                self._is_classifier = self._looks_like_a_classifier()
            average = MeanPrediction(is_classifier=self._is_classifier)
            for member in self._members:
                if member in stale:
                    self._restart(snapshot, member)
                    member.statistics = self._statistics(bar)
                self._restart(snapshot, member)
                # Here and not in the generator: one that isn't run to its end would leave gradients off behind it.
                with evaluating(self._model):
                    average.add(self._outputs(loader, bar))
        return average.batches()

    def _restart(self, snapshot: Snapshot, member: "_Member") -> None:
        """Put the loaders back to where they were, the generators to the same seed, and load the member."""
        snapshot.restore()
        seed_everything(_SEED)
        self._model.load_state_dict(member.state())

    def _outputs(self, loader: Any, bar: Bar) -> Iterator[tuple[Tensor, Any]]:
        for batch in Batches(loader, name="loader").one_pass():
            inputs, targets = _split(batch)
            yield self._forward(inputs), batch if self._takes_dicts and isinstance(batch, Mapping) else targets
            bar.advance()

    def _statistics(self, bar: Bar) -> dict[str, Tensor]:
        self._model.train()
        # A layer that the model's own train() leaves in eval mode is frozen: it would not get new statistics.
        layers = {name: layer for name, layer in _running(self._model) if layer.training}
        for layer in layers.values():
            layer.reset_running_stats()
            layer.momentum = None
        with torch.no_grad():
            for batch in Batches(self._data.train_loader).one_pass():
                self._forward(_split(batch)[0])
                bar.advance()
        return {
            f"{name}.{key}" if name else key: buffer.detach().to("cpu", copy=True)
            for name, layer in layers.items()
            for key, buffer in layer.named_buffers(recurse=False)
        }

    def _looks_like_a_classifier(self) -> bool:
        valid = self._data.valid_loader
        batches = Batches(self._data.train_loader if valid is None else valid).one_pass()
        inputs, targets = _split(next(batches))
        with evaluating(self._model):
            outputs = self._forward(inputs)
        return (
            isinstance(targets, Tensor)
            and not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
            and outputs.ndim == targets.ndim + 1
        )

    def _forward(self, inputs: Any) -> Tensor:
        # A copy, since the loader may yield the same tensors to the next member.
        output = forward(self._model, copied(inputs, device_of(self._model)))
        self._gives_tensors = isinstance(output, Tensor)
        if not self._gives_tensors:
            output = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        if not isinstance(output, Tensor) or output.ndim == 0:
            raise ArgumentError(
                "model must return a tensor with one row per sample, or an object with .logits, "
                f"got {describe(output)}; wrap it in a module that does"
            )
        return output

    def _scores(self, batches: "list[tuple[Tensor, Any]]") -> dict[str, float]:
        device = device_of(self._model)
        streaming = {name: metric for name, metric in self._metrics.items() if isinstance(metric, StreamingMetric)}
        functions = {name: metric for name, metric in self._metrics.items() if name not in streaming}
        sums = dict.fromkeys(["loss", *functions], 0.0)
        num_samples = 0
        for metric in streaming.values():
            metric.reset()
        for average, targets in batches:
            if targets is None:
                raise ArgumentError(
                    'loader must yield batches (inputs, targets), or dicts with "labels", to evaluate on, '
                    "got one without targets; use predict()"
                )
            num_samples += len(average)
            outputs: Any = average.to(device)
            targets = to_device(targets, device)
            if isinstance(targets, Mapping) and not self._gives_tensors:
                outputs = _Averages(logits=outputs)
            if not self._is_classifier:
                sums["loss"] += float(self._loss(outputs, targets)) * len(average)
            for name, function in functions.items():
                sums[name] += float(function(outputs, targets)) * len(average)
            for metric in streaming.values():
                metric.update(outputs, targets)
        scores = {name: total / num_samples for name, total in sums.items()}
        for name, metric in streaming.items():
            scores[name] = float(metric.compute())
            metric.reset()
        scores = {name: scores[name] for name in ("loss", *self._metrics)}
        if self._is_classifier:
            logs, classes = _flat(batches)
            scores["loss"] = float(nn.functional.nll_loss(logs.double(), classes))
            # A member that diverged makes the loss NaN, which is an answer, and no reason to end an evaluation.
            calibration = math.nan if math.isnan(scores["loss"]) else calibration_error(logs.exp(), classes)
            scores.setdefault("calibration_error", calibration)
        return scores

    def _loss(self, outputs: Any, targets: Any) -> Tensor:
        if self._loss_fn is None:
            raise ArgumentError(
                "loss_fn must be given unless targets are class indices [N] for outputs [N, C], got None; "
                "pass for example loss_fn=torch.nn.functional.mse_loss"
            )
        return self._loss_fn(outputs, targets)


class _Member:
    """One snapshot, read when it is needed, and its batch statistics once they are known."""

    def __init__(self, states: Sequence[Any], index: int) -> None:
        self._states = states
        self._index = index
        self.statistics: dict[str, Tensor] | None = None

    def state(self) -> Any:
        # A copy of the container keeps the versions that modules note beside their tensors.
        state = copy.copy(self._states[self._index])
        state.update(self.statistics or {})
        return state


def _split(batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a batch; None where it has no targets."""
    if isinstance(batch, Mapping):
        return batch, batch.get("labels")
    return (batch, None) if isinstance(batch, Tensor) else split_batch(batch)


class _Averages(dict[str, Any]):
    """An output of which only the logits are known, by attribute as by key."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the average over an ensemble has logits and no {name!r}") from None


def _labels(targets: Any) -> Any:
    return targets.get("labels") if isinstance(targets, Mapping) else targets


def _chunks(inputs: Any) -> ArrayLoader:
    arrays: Any
    if isinstance(inputs, Mapping):
        arrays = {name: as_tensor(value) for name, value in inputs.items()}
        parts = list(arrays.values())
    else:
        parts = [as_tensor(value) for value in (inputs if isinstance(inputs, tuple) else (inputs,))]
        arrays = tuple(parts) if isinstance(inputs, tuple) else parts[0]
    sizes = {len(part) if part.ndim else 0 for part in parts}
    if len(sizes) != 1 or 0 in sizes:
        raise ArgumentError(
            "inputs_or_loader must be inputs whose first dimension counts the same samples, at least one, "
            f"got shapes {[tuple(part.shape) for part in parts]}; for a single sample pass sample[None]"
        )
    return ArrayLoader(arrays, torch.arange(sizes.pop()), batch_size=_CHUNK_SIZE, seed=None)


def _running(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Yield the batch normalisations that keep running statistics, by name."""
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            yield name, layer


def _num_batches(loaders: Sequence[Any]) -> int | None:
    try:
        return sum(len(loader) for loader in loaders)
    except TypeError:
        return None


def _flat(batches: "list[tuple[Tensor, Any]]") -> tuple[Tensor, Tensor]:
    """Return log-probabilities [N, C] and classes [N] of all batches, without the targets that are to be ignored."""
    logs = torch.cat([average.movedim(1, -1).reshape(-1, average.shape[1]) for average, _ in batches])
    classes = torch.cat([_labels(targets).reshape(-1).long() for _, targets in batches])
    is_kept = classes != _IGNORED_CLASS
    return logs[is_kept], classes[is_kept]
