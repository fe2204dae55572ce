"""What fine-tuning treats differently in a model: its head and how many outputs it needs, layer groups, BatchNorms."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from cyclewise._validation import describe, whole
from cyclewise.errors import ArgumentError
from cyclewise.state import preserve
from cyclewise.stepping import split_batch
from cyclewise.training.data import ArrayLoader, Data

# The parameters of one layer: never divided between groups.
_Unit = list[nn.Parameter]

# Where data sets keep the targets of all samples, and dict batches those of theirs.
_TARGET_ATTRIBUTES = ("targets", "labels")
_TARGET_KEYS = ("labels", "label", "targets")


def replace_head(model: nn.Module, num_outputs: int) -> nn.Module:
    """Give `model` a new, freshly initialised head with `num_outputs` outputs, in place.

    The head is the one of :func:`find_head`. It is replaced even where it has the right size already: what it learned
    belongs to other classes. The new one has the old one's inputs, bias, device, dtype and mode; a model of timm makes
    its own.

    Args:
        model: the model; it is changed.
        num_outputs: outputs of the new head, for a classifier the number of classes.

    Returns:
        the new head; a :class:`torch.nn.ModuleList` where a timm model has several.

    Raises:
        ArgumentError: `num_outputs` is no whole number of at least 1, or the model has no such layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1000))
        >>> replace_head(model, 10)
        Linear(in_features=8, out_features=10, bias=True)
    """
    num_outputs = whole("num_outputs", num_outputs, minimum=1, way_out="pass the number of classes")
    if _has_own_classifier(model):
        return _reset_classifier(model, num_outputs)
    old = find_head(model)
    if old is None or old is model:
        raise ArgumentError(
            f"model must end in a Linear or 1x1 convolution layer that can be replaced, got a {type(model).__name__} "
            "without one; pass a function that returns a model with its own head, and num_outputs=None"
        )
    new = _like(old, num_outputs)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
    return new


def find_head(model: nn.Module) -> nn.Module | None:
    """Return the layer that makes the outputs, None where there is none that is known to.

    That is the classifier that a timm model names, else the last Linear in registration order, else a 1x1 convolution
    after which no other layer has parameters, as in SqueezeNet (arXiv:1602.07360).

    Example:
        >>> find_head(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1)))
        Conv2d(8, 10, kernel_size=(1, 1), stride=(1, 1))
    """
    if _has_own_classifier(model):
        classifier = _classifier(model)
        return classifier if any(True for _ in classifier.parameters()) else None
    last_linear: nn.Module | None = None
    for part in model.modules():
        # The output projection of an attention layer is a Linear whose weight that layer reads by name.
        if isinstance(part, nn.Linear) and not isinstance(part, NonDynamicallyQuantizableLinear):
            last_linear = part
    if last_linear is not None:
        return last_linear
    last = last_layer(model)
    return last if isinstance(last, _ConvNd) and set(last.kernel_size) == {1} and not last.transposed else None


def last_layer(model: nn.Module) -> nn.Module:
    """Return the last layer in registration order that has parameters of its own; without any, the model.

    >>> last_layer(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU()))
    LayerNorm((8,), eps=1e-05, ...)
    """
    last = model
    for part in model.modules():
        if any(True for _ in part.parameters(recurse=False)):
            last = part
    return last


def split_layers(
    model: nn.Module, head: nn.Module | Iterable[nn.Parameter], num_groups: int = 3
) -> list[list[nn.Parameter]]:
    """Divide the parameters of `model` into layer groups, from the input to the output.

    The head is the last group. The other layers, in the order they were registered, make ``num_groups - 1`` groups of
    about equal depth; depth is counted in layers with parameters of their own. A block that fits into one group is not
    divided, nor is a layer. Every parameter is in exactly one group; a tied one in the first that it belongs to, or in
    the head's. A model of few layers has fewer groups, never an empty one.

    Args:
        model: the model.
        head: the module that makes the outputs, or its parameters.
        num_groups: groups to make, at least 2.

    Returns:
        the parameters of each group.

    Raises:
        ArgumentError: `num_groups` is no whole number of at least 2, or `head` has parameters that `model` has not.

    Source: discriminative rates for layer groups: Howard and Ruder, arXiv:1801.06146, section 3.2.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
        >>> [[tuple(parameter.shape) for parameter in group] for group in split_layers(model, model[4])]
        [[(4, 2), (4,), (4, 4), (4,)], [(4, 4), (4,), (4, 4), (4,)], [(3, 4), (3,)]]
    """
    num_parts = whole("num_groups", num_groups, minimum=2, way_out="3 is usual: early layers, late layers, head") - 1
    of_head = _distinct(head.parameters() if isinstance(head, nn.Module) else head)
    of_model = {id(parameter) for parameter in model.parameters()}
    num_foreign = sum(id(parameter) not in of_model for parameter in of_head)
    if num_foreign:
        raise ArgumentError(
            f"head must be a part of the model, got one with {num_foreign} of {len(of_head)} parameters that are not "
            "the model's; pass what replace_head() returned"
        )
    units = _units(model, taken={id(parameter) for parameter in of_head})
    # Rounded up: of three layers, two of them one block, the block stays whole; unless that leaves too few groups.
    blocks = _blocks(model, dict(units), largest=math.ceil(len(units) / num_parts))
    if len(blocks) < num_parts:
        blocks = _blocks(model, dict(units), largest=len(units) / num_parts)
    groups = [[parameter for unit in part for parameter in unit] for part in _partition(blocks, num_parts)]
    return [group for group in (*groups, of_head) if group]


def num_classes(data: Any) -> int:
    """Return how many classes the training targets have: the largest class index + 1.

    Targets that the loader or its data set already holds are looked at there (also through a Subset or ConcatDataset);
    a data set's list of ``classes`` counts those without a sample too. Otherwise one pass over the training batches is
    made, and the loader given back as it was.

    Args:
        data: :class:`Data`, or a training loader. Targets are class indices, shape [N].

    Raises:
        ArgumentError: the targets are not class indices, or the loader has no length, so that a pass may never end.

    Example:
        >>> num_classes([(torch.zeros(2, 8), torch.tensor([0, 4])), (torch.zeros(2, 8), torch.tensor([1, 2]))])
        5
    """
    loader = data.train_loader if isinstance(data, Data) else data
    if isinstance(loader, ArrayLoader):
        count = _largest(loader._arrays[1]) + 1
    else:
        count = _classes_of_dataset(getattr(loader, "dataset", None)) or _classes_of_batches(loader)
    if count < 1:
        raise ArgumentError(
            f"targets must hold a class index of at least 0, got {count - 1} as the largest; "
            "pass num_outputs= with the size of the model's output"
        )
    return count


def _has_own_classifier(model: nn.Module) -> bool:
    return all(callable(getattr(model, name, None)) for name in ("get_classifier", "reset_classifier"))


def _classifier(model: nn.Module) -> nn.Module:
    classifier = model.get_classifier()  # type: ignore[operator]
    if isinstance(classifier, nn.Module):
        return classifier
    # Distilled models have two, one per token; their list here is no part of the model.
    return nn.ModuleList(part for part in classifier if isinstance(part, nn.Module))


def _reset_classifier(model: nn.Module, num_outputs: int) -> nn.Module:
    like = next(model.parameters(), None)
    model.reset_classifier(num_outputs)  # type: ignore[operator]
    head = _classifier(model)
    # Made on the default device and in the default dtype, wherever the model is.
    return head if like is None else head.to(device=like.device, dtype=like.dtype)


def _like(old: nn.Module, num_outputs: int) -> nn.Module:
    weight = old.weight
    assert isinstance(weight, Tensor)
    if is_lazy(weight):
        raise ArgumentError(
            f"model must have initialised parameters, got a {type(old).__name__} as head that has not seen a batch; "
            "run one batch through the model first"
        )
    bias = old.bias is not None
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_outputs, bias=bias, device=weight.device, dtype=weight.dtype)
    else:
        assert isinstance(old, _ConvNd)
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(old.kernel_size)]
        new = kind(old.in_channels, num_outputs, 1, bias=bias, device=weight.device, dtype=weight.dtype)
        new.stride, new.padding = old.stride, old.padding
    return new.train(old.training)


def _distinct(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def _units(model: nn.Module, *, taken: set[int]) -> dict[nn.Module, _Unit]:
    units = {}
    for part in model.modules():
        own = [p for p in _distinct(part.parameters(recurse=False)) if id(p) not in taken]
        taken.update(id(parameter) for parameter in own)
        if own:
            units[part] = own
    return units


def _blocks(module: nn.Module, units: dict[nn.Module, _Unit], *, largest: float) -> list[list[_Unit]]:
    """Take the units under `module` out, in blocks of at most `largest` units where its structure allows that."""
    # Taken out, so that a module that is registered twice is placed where it comes first.
    inside = [part for part in module.modules() if part in units]
    if len(inside) <= largest or _is_one_layer(module):
        return [[units.pop(part) for part in inside]] if inside else []
    blocks = [[units.pop(module)]] if module in units else []
    for child in module.children():
        blocks += _blocks(child, units, largest=largest)
    return blocks


def _is_one_layer(module: nn.Module) -> bool:
    # Layers of torch with parameters of their own and parts (attention, a parametrised Linear) are one layer to a user.
    has_own = any(True for _ in module.parameters(recurse=False))
    return type(module).__module__.startswith("torch.nn.") and (has_own or hasattr(module, "parametrizations"))


def _partition(blocks: list[list[_Unit]], num_parts: int) -> list[list[_Unit]]:
    """Return the blocks in at most `num_parts` runs, cut at the boundaries nearest to equal depth."""
    num_parts = min(num_parts, len(blocks))
    depths = [0]
    for block in blocks:
        depths.append(depths[-1] + len(block))
    cuts = [0]
    for part in range(1, num_parts):
        # At least one block for this part and for each of those to come.
        candidates = range(cuts[-1] + 1, len(blocks) - (num_parts - part) + 1)
        cuts.append(min(candidates, key=lambda cut: abs(depths[cut] - depths[-1] * part / num_parts)))
    cuts.append(len(blocks))
    return [[unit for block in blocks[start:end] for unit in block] for start, end in pairwise(cuts)]


def _classes_of_dataset(dataset: Any) -> int | None:
    """Return the number of classes that `dataset` knows of, None where only its samples can tell."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if isinstance(dataset, ConcatDataset):
        counts = [_classes_of_dataset(part) for part in dataset.datasets]
        return None if None in counts else max(count for count in counts if count is not None)
    if isinstance(dataset, TensorDataset):
        return _largest(dataset.tensors[-1]) + 1
    # What is kept are the targets before such a transform.
    if getattr(dataset, "target_transform", None) is not None:
        return None
    known = [int(kept.max()) + 1 for kept in _kept_targets(dataset)]
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        known.append(len(names))
    return max(known, default=None)


def _kept_targets(dataset: Any) -> Iterator[Tensor]:
    for name in _TARGET_ATTRIBUTES:
        kept = getattr(dataset, name, None)
        if not isinstance(kept, (Tensor, np.ndarray, list, tuple)):
            continue
        try:
            targets = torch.as_tensor(kept)
        except (TypeError, ValueError, RuntimeError):  # a list of names, of tensors: not the targets as they are used
            continue
        if _are_class_indices(targets):
            yield targets


def _classes_of_batches(loader: Any) -> int:
    try:
        len(loader)
    except TypeError:
        raise ArgumentError(
            f"train_loader must have a length to count the classes in one pass, got a {type(loader).__name__} without "
            "one; pass num_outputs= with the size of the model's output"
        ) from None
    with preserve(data=(loader,)):
        return max((_largest(_targets_of(batch)) for batch in loader), default=-1) + 1


def _targets_of(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next((batch[key] for key in _TARGET_KEYS if key in batch), None)
    return split_batch(batch)[1]


def _largest(targets: Any) -> int:
    try:
        indices = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        indices = None
    if indices is None or not _are_class_indices(indices):
        got = describe(targets) if indices is None else f"{indices.dtype} of shape {tuple(indices.shape)}"
        raise ArgumentError(
            f"targets must be class indices, integers of shape [N], to count the classes, got {got}; "
            "pass num_outputs= with the size of the model's output"
        )
    return int(indices.max())


def _are_class_indices(targets: Tensor) -> bool:
    is_whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    return is_whole and targets.ndim == 1 and len(targets) > 0
