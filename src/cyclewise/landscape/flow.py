"""How gradients and activations fare on their way through the layers: vanishing, exploding, dead and saturated units.

Source: Glorot and Bengio, *Understanding the difficulty of training deep feedforward neural networks* (2010): the norm
of d loss / d activation, layer by layer from the output back, stays in a healthy network and shrinks or grows by a
factor per layer in one that cannot learn. Layers are the modules that hold weights, in the order in which they run;
what is looked at is what enters them, so functional activations count, residual connections carry what they carry, and
a layer that is called many times (a recurrent cell) is one layer.

A unit is a feature, or a channel with all its places. ReLU units are dead where they are zero for every sample of
every batch: no gradient reaches what feeds them. A unit that another one replaces (a constant, after normalisation) is
not dead, and features of the data that never vary belong to the data.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from cyclewise.landscape.objective import Objective
from cyclewise.landscape.origins import Kind, channels_of, is_of_batch, origin_of
from cyclewise.landscape.transforms import is_stand_in
from cyclewise.ranks import gathered, sum_over_ranks

# Of the layer's own scale: less is rounding.
_CONSTANT = 1e-5
# Where the derivative is below 5 % of its largest value.
_SATURATED: dict[Kind, float] = {"tanh": math.sqrt(0.95), "sigmoid": (1.0 + math.sqrt(0.95)) / 2.0}
FEWEST_LAYERS = 3


@dataclass(frozen=True)
class LayerFlow:
    """What enters one layer, and the gradient that comes back there.

    Attributes:
        name: of the module; "output" for what leaves the last one, or the last ones where there are several heads.
        gradient_norm: of d loss / d input, over all samples of a batch, as a root mean square over the batches.
        activation: root mean square of the input.
        weight_gradient_ratio: length of the gradient of the layer's own parameters over their length; None where it has
            none of its own (tied or frozen ones), or they are zero.
        activation_kind: the activation that made the input; None where it is another, or a sum.
        num_units: features or channels of the input.
        dead_share: fraction of ReLU units that are zero for every sample; None where the input is not a ReLU's, or no
            sample has a say in it, as in a learned query.
        constant_share: fraction of units that are the same for every sample; None where they cannot be told.
        saturated_share: fraction of values of tanh or sigmoid whose derivative is below 5 % of its largest; None where
            the input is of neither.
    """

    name: str
    gradient_norm: float
    activation: float
    weight_gradient_ratio: float | None = None
    activation_kind: Kind | None = None
    num_units: int | None = None
    dead_share: float | None = None
    constant_share: float | None = None
    saturated_share: float | None = None


@dataclass(frozen=True)
class GradientFlow:
    """The gradient on its way back through the layers.

    Attributes:
        layers: from the first layer that a gradient flows into to the output, that of all heads together.
        per_layer_factor: by what the norm changes per layer on the way back, a geometric mean: below 1 it vanishes,
            above it explodes; None for fewer than three places, or without any gradient.
        per_layer_factor_std_error: its standard error, from the scatter of the layers around it.
        total_factor: norm at the first layer over norm at the output; None where the output has no gradient.
        update_ratios: for each layer with weights of its own, the first one included, length of their gradient over
            their length, by name. Pooling and the scale of activations, which move the norms, leave them alone.
        update_factor: by what they change per layer on the way back, as `per_layer_factor`.
        update_factor_std_error: its standard error.
        num_samples: rows that each layer saw, at least.
    """

    layers: tuple[LayerFlow, ...]
    per_layer_factor: float | None
    per_layer_factor_std_error: float | None
    total_factor: float | None
    update_ratios: tuple[tuple[str, float], ...]
    update_factor: float | None
    update_factor_std_error: float | None
    num_samples: int


def gradient_flow(objective: Objective) -> GradientFlow:
    """Measure gradients and activations by layer, over all ranks' batches; costs 1 gradient evaluation.

    Example:
        >>> layers = [nn.Linear(4, 4, bias=False) for _ in range(5)]
        >>> for layer in layers:
        ...     _ = layer.weight.data.copy_(torch.eye(4) / 10)
        >>> batch = torch.ones(2, 4), torch.ones(2, 4)
        >>> objective = Objective(nn.Sequential(*layers), nn.functional.mse_loss, [batch])
        >>> flow = gradient_flow(objective)
        >>> round(flow.per_layer_factor, 3), round(flow.total_factor, 6)
        (0.1, 0.0001)
    """
    watched = _watched(objective.model)
    seen: dict[str, _Seen] = {}
    heads: set[str] = set()
    total = objective.zeros()
    for index in range(objective.num_batches):
        with _hooked(watched, seen) as outputs, objective.still(index):
            loss = objective.batch_loss(index)
            heads |= _heads(loss, outputs)
            total += objective.flatten(torch.autograd.grad(loss, objective.parameters, materialize_grads=True))
        objective.cost += 1.0 / objective.num_batches
    num_batches = objective.num_all_batches
    ratios = _weight_ratios(objective, sum_over_ranks(total) / num_batches)
    seen, heads = _merged(gathered((seen, heads)))
    layers = [item.record(name, ratios.get(name), num_batches) for name, item in seen.items() if item.entered]
    if heads:
        norm, activation = _output([item for name, item in seen.items() if name in heads], num_batches)
        layers.append(LayerFlow("output", norm, activation))
    factor, error = _per_layer([layer.gradient_norm for layer in layers])
    norms = [layer.gradient_norm for layer in layers]
    own_ratios = tuple((name, ratios[name]) for name in seen if name in ratios)
    update_factor, update_error = _per_layer([ratio for _, ratio in own_ratios])
    return GradientFlow(
        layers=tuple(layers),
        per_layer_factor=factor,
        per_layer_factor_std_error=error,
        total_factor=norms[0] / norms[-1] if len(norms) > 1 and norms[-1] > 0.0 else None,
        update_ratios=own_ratios,
        update_factor=update_factor,
        update_factor_std_error=update_error,
        num_samples=min((item.num_rows for item in seen.values() if item.entered), default=0),
    )


@dataclass
class _Seen:
    """Sums over the calls and batches of one layer."""

    entered: bool = False
    gradient: float = 0.0
    output_gradient: float = 0.0
    squares: float = 0.0
    num_values: int = 0
    output_squares: float = 0.0
    num_output_values: int = 0
    num_rows: int = 0
    kind: Kind | None = None
    saturated: float = 0.0
    num_saturable: int = 0
    low: Tensor | None = None
    high: Tensor | None = None
    scale: float = 0.0
    is_of_batch: bool = False
    uneven: bool = False

    def enter(self, module: nn.Module, tensor: Tensor) -> None:
        self.entered = True
        self.is_of_batch |= is_of_batch(tensor)
        self.squares += float(tensor.detach().double().square().sum())
        self.num_values += tensor.numel()
        origin = origin_of(tensor)
        if origin is not None:
            values, dim, self.kind = origin.values, origin.unit_dim, origin.kind
            if origin.kind in _SATURATED:
                limit = _SATURATED[origin.kind]
                far = values.abs() > limit if origin.kind == "tanh" else (values > limit) | (values < 1.0 - limit)
                self.saturated += float(far.sum())
                self.num_saturable += values.numel()
        else:
            channels = channels_of(tensor)
            values = tensor.detach() if channels is None else channels
            dim = _unit_dim(module, tensor) if channels is None else 1
        rows = values.movedim(dim, -1).reshape(-1, values.shape[dim])
        if len(rows):
            self._spread(rows)

        def arrived(gradient: Tensor) -> None:
            self.gradient += float(gradient.detach().double().square().sum())

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]

    def leave(self, tensor: Tensor) -> None:
        self.output_squares += float(tensor.detach().double().square().sum())
        self.num_output_values += tensor.numel()

        def arrived(gradient: Tensor) -> None:
            self.output_gradient += float(gradient.detach().double().square().sum())

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]

    def record(self, name: str, ratio: float | None, num_batches: int) -> LayerFlow:
        known = self.is_of_batch and not self.uneven and self.num_rows > 1
        dead = constant = None
        if known and self.low is not None and self.high is not None:
            constant = float((self.high - self.low <= _CONSTANT * self.scale).double().mean())
            if self.kind == "relu":
                dead = float(((self.high == 0) & (self.low == 0)).double().mean())
        return LayerFlow(
            name=name,
            gradient_norm=math.sqrt(self.gradient / num_batches),
            activation=math.sqrt(self.squares / max(self.num_values, 1)),
            weight_gradient_ratio=ratio,
            activation_kind=self.kind,
            num_units=None if self.low is None or self.uneven else len(self.low),
            dead_share=dead,
            constant_share=constant,
            saturated_share=self.saturated / self.num_saturable if self.num_saturable else None,
        )

    def _spread(self, rows: Tensor) -> None:
        self.num_rows += len(rows)
        self.scale = max(self.scale, float(rows.abs().max()))
        self._widen(rows.amin(0).cpu(), rows.amax(0).cpu())

    def add(self, other: "_Seen") -> None:
        """Add what another rank has seen of the same layer."""
        self.entered |= other.entered
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kind = other.kind if self.kind is None else self.kind
        self.scale = max(self.scale, other.scale)
        self.uneven |= other.uneven
        self.is_of_batch |= other.is_of_batch
        if other.low is not None and other.high is not None:
            self._widen(other.low, other.high)

    def _widen(self, low: Tensor, high: Tensor) -> None:
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        elif self.low.shape != low.shape:
            self.uneven = True
        else:
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)


_SUMS = (
    "gradient", "output_gradient", "squares", "num_values", "output_squares", "num_output_values", "num_rows",
    "saturated", "num_saturable",
)  # fmt: skip


def _merged(ranks: Sequence[tuple[dict[str, _Seen], set[str]]]) -> tuple[dict[str, _Seen], set[str]]:
    """Return what all ranks have seen together, in the order of the first one's layers, and the heads."""
    merged: dict[str, _Seen] = {}
    for seen, _ in ranks:
        for name, item in seen.items():
            if name in merged:
                merged[name].add(item)
            else:
                merged[name] = item
    return merged, set().union(*(heads for _, heads in ranks))


def _heads(loss: Tensor, outputs: dict[Any, str]) -> set[str]:
    """Return the layers whose outputs the loss is made of, with no other layer in between: one, or one per head.

    The one called last may be an auxiliary head that hardly counts, and says nothing of the gradient at the output.
    """
    heads: set[str] = set()
    seen: set[Any] = set()
    pending = [loss.grad_fn]
    while pending:
        node: Any = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in outputs:
            heads.add(outputs[node])
        else:
            pending.extend(following for following, _ in node.next_functions)
    return heads


def _output(heads: Sequence[_Seen], num_batches: int) -> tuple[float, float]:
    """Return length of the gradient and root mean square of the outputs, of all heads together."""
    gradient = sum(head.output_gradient for head in heads)
    squares = sum(head.output_squares for head in heads)
    return math.sqrt(gradient / num_batches), math.sqrt(squares / max(1, sum(head.num_output_values for head in heads)))


@contextmanager
def _hooked(watched: dict[str, nn.Module], seen: dict[str, _Seen]) -> Iterator[dict[Any, str]]:
    """Watch what enters and leaves the modules while the block runs; gives the graph's nodes of the outputs by name."""
    outputs: dict[Any, str] = {}
    handles: list[RemovableHandle] = []

    def before(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        tensor = _first_tensor([*args, *kwargs.values()])
        item = seen.setdefault(name, _Seen())
        if tensor is not None and torch.is_grad_enabled():
            item.enter(module, tensor)

    def after(name: str, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is not None and torch.is_grad_enabled():
            seen[name].leave(tensor)
            outputs[tensor.grad_fn] = name

    try:
        for name, module in watched.items():
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: before(name, module, args, kwargs), with_kwargs=True
                )
            )
            handles.append(module.register_forward_hook(lambda module, args, output, name=name: after(name, output)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _watched(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that hold weights, by name; a weight that is computed from others belongs to its module."""
    result: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # A compiled script takes no hooks.
        if "parametrizations" in name.split(".") or isinstance(module, torch.jit.ScriptModule):
            continue
        own = list(module.parameters(recurse=False))
        if is_parametrized(module):
            own += list(module.parametrizations.parameters())
        if any(parameter.ndim >= 2 for parameter in own):
            result[name or "model"] = module
    return result


def _first_tensor(values: Any) -> Tensor | None:
    """Return the first tensor that a gradient flows through."""
    if isinstance(values, PackedSequence):
        values = values.data
    if isinstance(values, Tensor):
        return values if values.ndim and values.grad_fn is not None and not is_stand_in(values) else None
    if isinstance(values, (tuple, list)):
        return next((tensor for value in values if (tensor := _first_tensor(value)) is not None), None)
    return None


def _unit_dim(module: nn.Module, tensor: Tensor) -> int:
    if isinstance(module, _ConvNd):
        return tensor.ndim - len(module.kernel_size) - 1
    return tensor.ndim - 1


def _weight_ratios(objective: Objective, gradient: Tensor) -> dict[str, float]:
    squares: dict[str, list[float]] = {}
    for name, parameter, part in zip(objective.names, objective.parameters, objective.split(gradient), strict=True):
        module = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
        sums = squares.setdefault(module or "model", [0.0, 0.0])
        sums[0] += float(part.double().square().sum())
        sums[1] += float(parameter.detach().double().square().sum())
    return {name: math.sqrt(own / weight) for name, (own, weight) in squares.items() if weight > 0.0}


def _per_layer(norms: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the factor per layer from the last norm back to the first, by least squares on the logarithms."""
    if len(norms) < FEWEST_LAYERS or not all(map(math.isfinite, norms)) or max(norms) == 0.0:
        return None, None
    # A norm of zero has underflowed somewhere on its way.
    logs = [math.log(max(norm, torch.finfo(torch.float32).tiny)) for norm in reversed(norms)]
    middle, mean = (len(logs) - 1) / 2.0, sum(logs) / len(logs)
    spread = sum((i - middle) ** 2 for i in range(len(logs)))
    slope = sum((i - middle) * (log - mean) for i, log in enumerate(logs)) / spread
    rest = sum((log - mean - slope * (i - middle)) ** 2 for i, log in enumerate(logs))
    factor = math.exp(slope)
    return factor, factor * math.sqrt(rest / max(len(logs) - 2, 1) / spread)
