"""Pretrained models from a function, a Hugging Face model directory or timm, with their layer groups."""

import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from cyclewise._validation import describe, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError, MissingExtraError
from cyclewise.training.layers import find_head, last_layer, replace_head, split_layers

LayerGroups = list[list[nn.Parameter]]

# How functions ask for their pretrained weights: torchvision's old way and timm's, torchvision's present way.
_REQUESTS = {"pretrained": True, "weights": "DEFAULT"}
_TIMM_PREFIX = "timm/"


def load_pretrained(
    arch: str | os.PathLike[str] | Callable[..., nn.Module], *, num_outputs: int | None
) -> tuple[nn.Module, LayerGroups]:
    """Return a pretrained model with a new head, and its parameters in layer groups.

    Args:
        arch: where the model comes from:

            - a function that returns it; it is called with ``pretrained=True`` or ``weights="DEFAULT"`` where it has
              such a parameter, else without arguments.
            - a directory that holds a Hugging Face classifier of images or text (``config.json`` and its weights); it
              is read through transformers, without a network. Its outputs are the logits.
            - any other text is the name of a timm model, with or without ``timm/`` before it; timm fetches the weights.
        num_outputs: outputs of the new head, for a classifier the number of classes; None keeps the model's own head.

    Returns:
        the model, and its layer groups from the input to the output, the head (for a Hugging Face model: all that is
        newly initialised) last; see :func:`split_layers`.

    Raises:
        ArgumentTypeError: `arch` is neither a function nor a text, or the function returns no module.
        ArgumentError: there is no such model, it has no pretrained weights, or no head that can be replaced.
        MissingExtraError: timm or transformers is needed and not installed.

    Example:
        >>> def perceptron(pretrained: bool) -> nn.Module:
        ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1000))
        >>> model, groups = load_pretrained(perceptron, num_outputs=10)
        >>> model[2].out_features, [len(group) for group in groups]
        (10, [2, 2])
    """
    if num_outputs is not None:
        num_outputs = whole("num_outputs", num_outputs, minimum=1, way_out="None keeps the model's own head")
    if isinstance(arch, (str, os.PathLike)):
        if Path(arch).is_dir():
            return _from_directory(Path(arch), num_outputs)
        return _from_timm(os.fspath(arch), num_outputs)
    if isinstance(arch, nn.Module) or not callable(arch):
        raise ArgumentTypeError(
            f"arch must be a function that returns a model, a directory or a name, got {describe(arch)}; "
            "for a model that is made already pass lambda: model"
        )
    return _from_function(arch, num_outputs)


class Logits(nn.Module):
    """A Hugging Face classifier that returns its logits [N, C], so that it works with ``(inputs, targets)`` batches.

    Called with ``labels=``, as dict batches are, it returns the whole output, which holds the loss.

    Args:
        model: a model whose output has ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the logits, or with ``labels=`` the whole output."""
        output = self.model(*inputs, **named)
        return output if "labels" in named else output.logits


def _from_function(function: Callable[..., Any], num_outputs: int | None) -> tuple[nn.Module, LayerGroups]:
    model = function(**_request(function))
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            f"arch must return a torch.nn.Module, got {describe(model)}; pass a function that makes one model"
        )
    return model, split_layers(model, _head(model, num_outputs))


def _request(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword argument that asks `function` for pretrained weights."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C have no signature
        return {}
    # What a partial function sets is its maker's choice.
    chosen = function.keywords if isinstance(function, functools.partial) else {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, value in _REQUESTS.items():
        if name in parameters and parameters[name].kind in kinds:
            return {} if name in chosen else {name: value}
    return {}


def _head(model: nn.Module, num_outputs: int | None) -> nn.Module:
    if num_outputs is not None:
        return replace_head(model, num_outputs)
    # A head of a kind unknown here is still what comes last.
    return find_head(model) or last_layer(model)


def _from_timm(name: str, num_outputs: int | None) -> tuple[nn.Module, LayerGroups]:
    timm = _module("timm")
    name = name.removeprefix(_TIMM_PREFIX)
    # Names such as "hf-hub:owner/model" lead outside of timm's own list.
    if ":" not in name:
        _check_timm_name(timm, name)
    if num_outputs is None:
        model = timm.create_model(name, pretrained=True)
        head = _head(model, None)
    else:
        model = timm.create_model(name, pretrained=True, num_classes=num_outputs)
        # Where the number is that of the checkpoint, its head was loaded too.
        had = getattr(model, "pretrained_cfg", {}).get("num_classes")
        head = replace_head(model, num_outputs) if had == num_outputs else _head(model, None)
    return model, split_layers(model, head)


def _check_timm_name(timm: Any, name: str) -> None:
    stem = name.partition(".")[0]
    known = timm.list_models()
    if not timm.is_model(name):
        near = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?" if near else "timm.list_models() has them"
        raise ArgumentError(
            f"arch must be a function, a directory that exists or the name of a timm model, got {name!r}; {hint}"
        )
    # timm leaves some such models at their random start and only logs it. An old name for a model is not in the list.
    if not timm.is_model_pretrained(name) and stem in known:
        tagged = timm.list_models(f"{stem}.*", pretrained=True)
        hint = f"there is {', '.join(repr(other) for other in tagged)}" if tagged else "choose another model"
        raise ArgumentError(f"arch must be a timm model with pretrained weights, got {name!r}; {hint}")


def _from_directory(directory: Path, num_outputs: int | None) -> tuple[nn.Module, LayerGroups]:
    if not (directory / "config.json").is_file():
        raise ArgumentError(
            f"arch must be a directory with the config.json of a Hugging Face model, got {str(directory)!r} without; "
            "save one with save_pretrained(directory); for a timm model of that name put 'timm/' before it"
        )
    transformers = _module("transformers")
    # A model directory may bring its own code; only the models of transformers itself are read.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(directory, **options)
    kind = _auto_class(transformers, config)
    if num_outputs is not None:
        options |= {"num_labels": num_outputs, "ignore_mismatched_sizes": True}
    classifier, loading = kind.from_pretrained(directory, output_loading_info=True, **options)
    # A mismatched key comes with both shapes.
    keys = {key if isinstance(key, str) else key[0] for key in (*loading["missing_keys"], *loading["mismatched_keys"])}
    fresh = [parameter for name, parameter in classifier.named_parameters() if name in keys]
    model = Logits(classifier)
    head = find_head(model) or last_layer(model)
    if num_outputs is not None and not {id(parameter) for parameter in head.parameters()} & {id(p) for p in fresh}:
        head = replace_head(model, num_outputs)
    return model, split_layers(model, [*fresh, *head.parameters()])


def _auto_class(transformers: Any, config: Any) -> Any:
    """Return transformers' class that loads a classifier with this configuration."""
    images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    texts = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if images and texts:
        images = any("ImageClassification" in name for name in config.architectures or ())
    if not images and not texts:
        raise ArgumentError(
            f"arch must be a directory with a classifier of images or text, got a {type(config).__name__}; "
            "pass a function that loads the model"
        )
    return transformers.AutoModelForImageClassification if images else transformers.AutoModelForSequenceClassification


def _module(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError.for_extra("pretrained", package) from error
