"""torch's recurrent layers written as a loop, so that the state at every step can be looked at and differentiated.

:func:`unrolled` replaces the forward pass of ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` while a block runs: the same
numbers up to rounding, any number of layers, both directions, projections and dropout between layers, and second
derivatives as well, which cuDNN's kernels do not have. Not for packed sequences, whose samples end at different steps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, ...]
# Given the module, its layer, its direction (1 is backwards) and the state after a step; returns the one to go on with.
Visit = Callable[[nn.Module, int, int, State], State]


@contextmanager
def unrolled(modules: Sequence[nn.RNNBase], visit: Visit) -> Iterator[None]:
    """Run `modules` step by step while the block runs, showing the state after every step to `visit`.

    Example:
        >>> layer = nn.GRU(2, 3, num_layers=2, bidirectional=True)
        >>> inputs = torch.randn(4, 5, 2)
        >>> expected, _ = layer(inputs)
        >>> with unrolled([layer], lambda module, layer, direction, state: state):
        ...     outputs, last = layer(inputs)
        >>> torch.allclose(outputs, expected, atol=1e-6), tuple(last.shape)
        (True, (4, 5, 3))
    """
    own = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = _forward(module, visit)
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _forward(module: nn.RNNBase, visit: Visit) -> Callable[..., Any]:
    def forward(input: Any, hx: Any = None) -> Any:
        is_batched = input.ndim == 3
        inputs = input if is_batched else input.unsqueeze(1)
        if is_batched and module.batch_first:
            inputs = inputs.transpose(0, 1)
        outputs, last = _layers(module, inputs, _initial(module, inputs, hx, is_batched), visit)
        if is_batched and module.batch_first:
            outputs = outputs.transpose(0, 1)
        if not is_batched:
            outputs, last = outputs.squeeze(1), tuple(part.squeeze(1) for part in last)
        return outputs, (last if module.mode == "LSTM" else last[0])

    return forward


def _layers(module: nn.RNNBase, inputs: Tensor, initial: State, visit: Visit) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the outputs of the top layer, [T, B, directions * H], and the last states of all layers."""
    num_directions = 2 if module.bidirectional else 1
    last: list[State] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(num_directions):
            place = layer * num_directions + direction
            states, end = _direction(module, layer, direction, inputs, tuple(part[place] for part in initial), visit)
            outputs.append(torch.stack(states))
            last.append(end)
        inputs = torch.cat(outputs, dim=-1)
        if layer < module.num_layers - 1:
            inputs = F.dropout(inputs, module.dropout, module.training)
    return inputs, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _direction(
    module: nn.RNNBase, layer: int, direction: int, inputs: Tensor, state: State, visit: Visit
) -> tuple[list[Tensor], State]:
    suffix = f"_l{layer}{'_reverse' if direction else ''}"
    weights = {
        name: getattr(module, name + suffix, None)
        for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_hr")
    }
    cell = _CELLS[module.mode]
    driven = F.linear(inputs, weights["weight_ih"], weights["bias_ih"]).unbind(0)  # type: ignore[arg-type]
    steps = range(len(driven) - 1, -1, -1) if direction else range(len(driven))
    outputs: list[Any] = [None] * len(driven)
    for step in steps:
        recurrent = F.linear(state[0], weights["weight_hh"], weights["bias_hh"])  # type: ignore[arg-type]
        state = cell(driven[step], recurrent, state)
        if weights["weight_hr"] is not None:
            state = (F.linear(state[0], weights["weight_hr"]), *state[1:])
        state = visit(module, layer, direction, state)
        outputs[step] = state[0]
    return outputs, state


def _initial(module: nn.RNNBase, inputs: Tensor, hx: Any, is_batched: bool) -> State:
    if hx is not None:
        given = hx if isinstance(hx, (tuple, list)) else (hx,)
        return tuple(part if is_batched else part.unsqueeze(1) for part in given)
    count = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or module.hidden_size]
    if module.mode == "LSTM":
        sizes.append(module.hidden_size)
    return tuple(inputs.new_zeros(count, inputs.shape[1], size) for size in sizes)


def _tanh(driven: Tensor, recurrent: Tensor, state: State) -> State:
    return (torch.tanh(driven + recurrent),)


def _relu(driven: Tensor, recurrent: Tensor, state: State) -> State:
    return (torch.relu(driven + recurrent),)


def _lstm(driven: Tensor, recurrent: Tensor, state: State) -> State:
    i, f, g, o = (driven + recurrent).chunk(4, dim=-1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _gru(driven: Tensor, recurrent: Tensor, state: State) -> State:
    driven_r, driven_z, driven_n = driven.chunk(3, dim=-1)
    recurrent_r, recurrent_z, recurrent_n = recurrent.chunk(3, dim=-1)
    z = torch.sigmoid(driven_z + recurrent_z)
    new = torch.tanh(driven_n + torch.sigmoid(driven_r + recurrent_r) * recurrent_n)
    return ((1.0 - z) * new + z * state[0],)


_CELLS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "RNN_TANH": _tanh,
    "RNN_RELU": _relu,
    "LSTM": _lstm,
    "GRU": _gru,
}
