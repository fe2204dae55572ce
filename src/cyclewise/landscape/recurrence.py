"""How far back a recurrent network remembers: the gradient through time, and the factor per step.

Source: Goodfellow et al., *Deep Learning*, section 8.2.5: composing one step t times multiplies what is remembered by
W^t = V diag(lambda)^t V^-1, which vanishes or explodes with lambda; for networks Pascanu et al., arXiv:1211.5063: there
W is the Jacobian of one state by the one before it, another one at every step and sample.

With a random direction u of the last state s_T, the *influence* at lag k is the length of ``u' ds_T / ds_(T-k)``, 1 at
lag 0, along the sequences given. In the mean over samples its logarithm falls along a straight line, whose slope is the
largest Lyapunov exponent of the recurrence: the *growth factor* is its exponential, which is the spectral radius of W
where the recurrence is linear. Beside it stands the norm of d loss / d state by lag, which depends on what is read out.

Layers ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` run as a loop, layer by layer and direction by direction. Beyond them,
every module with parameters that is called again and again in one forward pass is looked at, the outermost first: if
what it returns depends on what it returned before, that is a state (cells, and cells written by hand).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from cyclewise.landscape.objective import LOSS_COST, Objective
from cyclewise.landscape.transforms import is_stand_in
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.landscape.unrolled import State, unrolled
from cyclewise.ranks import gathered

_FEWEST_STEPS = 4
# The first part of the lags is left to the directions that die fast.
_TRANSIENT_SHARE = 0.25
# Where single precision still has all its digits.
_SMALLEST, _LARGEST = 1e-30, 1e30
_BACKWARD_COST = 1.0 - LOSS_COST
_NUM_PROBES = 3
_SAME = 1e-3

Key = tuple[nn.Module, int, int]


@dataclass(frozen=True)
class Recurrence:
    """The way back through time in one layer and direction.

    Attributes:
        name: of the module, with its layer and direction where it has several.
        num_steps: states in a sequence.
        influence: of the state k steps back on the last one, by lag k, geometric mean over samples; 1 at lag 0.
        growth_factor: by what the influence changes per step further back: below 1 it fades, above it explodes.
        growth_factor_std_error: its standard error over the samples; None for a single one.
        gradient_norms: of d loss / d state, by lag from the last state on, over all samples of a batch.
        reads_end: whether the loss reads the last states only.
        num_samples: sequences.
    """

    name: str
    num_steps: int
    influence: tuple[float, ...]
    growth_factor: float
    growth_factor_std_error: float | None
    gradient_norms: tuple[float, ...]
    reads_end: bool
    num_samples: int

    @property
    def horizon(self) -> float | None:
        """Steps until the influence has fallen to 1/e for good; None where it does not fall."""
        return self.reach(math.exp(-1.0))

    def reach(self, share: float) -> float | None:
        """Return after how many steps the influence has fallen to `share` for good, beyond the sequence by its factor.

        None where it does not fall: it grows, or stays.

        Example:
            >>> halves = tuple(0.5**k for k in range(6))
            >>> recurrence = Recurrence("rnn", 6, halves, 0.5, 0.0, halves, True, 8)
            >>> round(recurrence.reach(0.25), 6), round(recurrence.reach(2.0**-10), 6)
            (2.0, 10.0)
        """
        above = [lag for lag, value in enumerate(self.influence) if value > share]
        if not above:
            return 0.0
        lag = above[-1]
        here = math.log(self.influence[lag] / share)
        if lag + 1 < len(self.influence):
            following = max(self.influence[lag + 1], _SMALLEST**2)
            return lag + here / math.log(self.influence[lag] / following)
        if not 0.0 < self.growth_factor < 1.0:
            return None if self.growth_factor else float(lag)
        return lag - here / math.log(self.growth_factor)


@dataclass(frozen=True)
class Memory:
    """All recurrences of a model.

    Attributes:
        recurrences: in the order in which they run; empty with a `reason`.
        reason: why there is none; None where there is one.
    """

    recurrences: tuple[Recurrence, ...]
    reason: Unavailable | None


def memory(objective: Objective, *, most_batches: int = 2, seed: int = 0) -> Memory:
    """Measure how far back the model's recurrences reach.

    It costs a forward pass over a batch where there is none. Otherwise, for each batch, forward and backward and a
    further backward pass (two thirds of a gradient evaluation) for each layer and direction, run step by step.

    Args:
        objective: the mean loss over the batches.
        most_batches: measure along the sequences of so many batches, the first ones of all ranks'.
        seed: of the random directions.

    Example:
        >>> model = nn.RNN(1, 2, nonlinearity="relu", bias=False)
        >>> _ = model.weight_hh_l0.data.copy_(torch.tensor([[0.9, 0.0], [0.0, 0.9]]))
        >>> _ = model.weight_ih_l0.data.fill_(1.0)
        >>> loss_fn = lambda outputs, targets: ((outputs[0][-1] - targets) ** 2).mean()
        >>> found = memory(Objective(model, loss_fn, [(torch.ones(20, 8, 1), torch.zeros(8, 2))]))
        >>> recurrence = found.recurrences[0]
        >>> round(recurrence.growth_factor, 4), round(recurrence.horizon, 2), recurrence.reads_end
        (0.9, 9.49, True)
    """
    layers, candidates, packed = _find(objective)
    found: dict[Key, _Found] = {}
    num_batches = max(0, min(most_batches - objective.first_batch, objective.num_batches))
    for index in range(num_batches if layers or candidates else 0):
        generator = torch.Generator().manual_seed(seed + objective.first_batch + index)
        with _recorded(layers, candidates) as states, objective.still(index, twice=True):
            loss = objective.batch_loss(index)
            objective.cost += LOSS_COST / objective.num_batches
            _measure(objective, loss, states, candidates, found, generator)
    names = {module: name or "model" for name, module in objective.model.named_modules()}
    merged: dict[str, _Found] = {}
    for of_rank in gathered({_name(key, names): item for key, item in found.items()}):
        for name, item in of_rank.items():
            if name in merged:
                merged[name].add(item)
            else:
                merged[name] = item
    recurrences = [item.record(name) for name, item in merged.items() if item.num_steps >= _FEWEST_STEPS]
    if recurrences:
        return Memory(tuple(recurrences), None)
    return Memory((), Unavailable.PACKED if packed else Unavailable.TOO_SHORT if layers else Unavailable.NO_RECURRENCE)


class _Found:
    """What the batches have shown of one recurrence."""

    def __init__(self) -> None:
        self.logs: list[Tensor] = []  # [lags, samples] of each batch
        self.squares: list[list[float]] = []
        self.reads_end = True

    def add(self, other: "_Found") -> None:
        """Add what another rank's batches have shown."""
        self.logs += other.logs
        self.squares += other.squares
        self.reads_end &= other.reads_end

    @property
    def num_steps(self) -> int:
        return max((len(logs) for logs in self.logs), default=0)

    def record(self, name: str) -> Recurrence:
        slopes = torch.cat([_slopes(logs) for logs in self.logs])
        # Rectified states may be cut off at once, in some samples or in all.
        alive = slopes[torch.isfinite(slopes)]
        factor = math.exp(float(alive.mean())) if 2 * len(alive) >= len(slopes) else 0.0
        error = float(alive.std() / math.sqrt(len(alive))) if len(alive) > 1 and factor > 0.0 else None
        influence, norms = [], []
        for lag in range(self.num_steps):
            values = torch.cat([logs[lag] for logs in self.logs if lag < len(logs)])
            influence.append(float(values.clamp(min=2.0 * math.log(_SMALLEST)).mean().exp()))
            squares = [batch[lag] for batch in self.squares if lag < len(batch)]
            norms.append(math.sqrt(sum(squares) / len(squares)))
        return Recurrence(
            name=name,
            num_steps=self.num_steps,
            influence=tuple(influence),
            growth_factor=factor,
            growth_factor_std_error=None if error is None else factor * error,
            gradient_norms=tuple(norms),
            reads_end=self.reads_end,
            num_samples=len(slopes),
        )


def _find(objective: Objective) -> tuple[list[nn.RNNBase], list[nn.Module], bool]:
    """Return the recurrent layers that run, other modules called again and again, and whether packed sequences came."""
    calls: dict[nn.Module, int] = {}
    packed: set[nn.Module] = set()
    handles = []

    def called(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if any(isinstance(value, PackedSequence) for value in (*args, *kwargs.values())):
            packed.add(module)

    try:
        for module in objective.model.modules():
            # A compiled script takes no hooks.
            if not isinstance(module, torch.jit.ScriptModule) and next(module.parameters(), None) is not None:
                handles.append(module.register_forward_pre_hook(called, with_kwargs=True))
        with objective.still(0), torch.no_grad():
            objective.batch_loss(0)
        objective.cost += LOSS_COST / objective.num_batches
    finally:
        for handle in handles:
            handle.remove()
    layers = [module for module in calls if _is_known(module) and module not in packed]
    repeated = [module for module, count in calls.items() if count >= _FEWEST_STEPS]
    candidates = [module for module in objective.model.modules() if module in repeated]
    return layers, [module for module in candidates if not isinstance(module, nn.RNNBase)], bool(packed)


def _is_known(module: nn.Module) -> TypeGuard[nn.RNNBase]:
    """Return whether it is one of torch's recurrent layers, with its own forward pass; a subclass may have another."""
    forwards = [kind.forward for kind in (nn.RNN, nn.LSTM, nn.GRU)]
    return isinstance(module, nn.RNNBase) and "forward" not in vars(module) and type(module).forward in forwards


@contextmanager
def _recorded(layers: Sequence[nn.RNNBase], candidates: Sequence[nn.Module]) -> Iterator[dict[Key, list[State]]]:
    """Gather the states of all steps while the block runs, each an alias of its own.

    An alias leads to what comes later only. Where a state has two parts, and one is computed from the other in the same
    step, as an LSTM's output is from its cell, the derivatives by the aliases are those by the parts for themselves.
    """
    states: dict[Key, list[State]] = {}

    def visit(module: nn.Module, layer: int, direction: int, state: State) -> State:
        aliases = tuple(part.view_as(part) for part in state)
        states.setdefault((module, layer, direction), []).append(aliases)
        return aliases

    def returned(module: nn.Module, args: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():
            return output
        parts = output if isinstance(output, tuple) and type(output) is tuple else (output,)
        if not all(_can_be_state(part) for part in parts):
            return output
        aliases = visit(module, 0, 0, parts)
        return aliases if isinstance(output, tuple) else aliases[0]

    with ExitStack() as stack:
        for module in candidates:
            stack.callback(module.register_forward_hook(returned).remove)
        stack.enter_context(unrolled(layers, visit))
        yield states


def _can_be_state(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim > 0 and not is_stand_in(part)


def _measure(
    objective: Objective,
    loss: Tensor,
    states: dict[Key, list[State]],
    candidates: Sequence[nn.Module],
    found: dict[Key, _Found],
    generator: torch.Generator,
) -> None:
    inside: set[nn.Module] = set()
    # Cells before what is inside them; layers, which hold nothing, in the order in which they run.
    keys = sorted(states, key=lambda key: candidates.index(key[0]) if key[0] in candidates else -1)
    share = _BACKWARD_COST / objective.num_batches
    for key in keys:
        sequence = states[key]
        if key[0] in inside or len(sequence) < _FEWEST_STEPS or not all(part.requires_grad for part in sequence[-1]):
            continue
        last = sequence[-1]
        probe = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part) for part in last]
        length = _lengths(probe)
        probe = [part / length.view(-1, *[1] * (part.ndim - 1)) for part in probe]
        earlier = _gradients(last, sequence[:-1], probe)
        objective.cost += share
        logs = [torch.zeros(len(length), dtype=torch.float64)]
        for gradients in reversed(earlier):
            if gradients is None:
                break
            logs.append(_lengths(gradients).log().cpu())
        if len(logs) < _FEWEST_STEPS:
            continue
        inside |= set(key[0].modules()) - {key[0]}
        item = found.setdefault(key, _Found())
        item.logs.append(torch.stack(logs))
        chain = sequence[-len(logs) :]
        by_loss = _gradients((loss,), chain, [torch.ones_like(loss)])
        objective.cost += share
        filled = [
            [torch.zeros_like(part) for part in state] if gradients is None else gradients
            for gradients, state in zip(by_loss, chain, strict=True)
        ]
        item.squares.append([float(_lengths(gradients).square().sum()) for gradients in reversed(filled)])
        item.reads_end &= _reads_end(chain, filled)


def _reads_end(chain: Sequence[State], by_loss: Sequence[Sequence[Tensor]]) -> bool:
    """Return whether the loss's gradient by a state is what comes back from the next one, at some places on the way."""
    for place in sorted({len(chain) * i // (_NUM_PROBES + 1) for i in range(1, _NUM_PROBES + 1)}):
        if place + 1 >= len(chain):
            continue
        (through,) = _gradients(chain[place + 1], [chain[place]], by_loss[place + 1])
        total = torch.stack([part.double().norm() for part in by_loss[place]]).norm()
        if through is None:
            return False
        direct = torch.stack([(a - b).double().norm() for a, b in zip(by_loss[place], through, strict=True)]).norm()
        if float(direct) > _SAME * float(total):
            return False
    return True


def _gradients(outputs: State, states: Sequence[State], weights: Sequence[Tensor]) -> list[list[Tensor] | None]:
    """Return the gradient of the weighted outputs by each state; None for a state they do not depend on."""
    flat = [part for state in states for part in state]
    gradients = iter(torch.autograd.grad(outputs, flat, weights, retain_graph=True, allow_unused=True))
    result: list[list[Tensor] | None] = []
    for state in states:
        parts = [next(gradients) for _ in state]
        if all(part is None for part in parts):
            result.append(None)
        else:
            result.append(
                [torch.zeros_like(own) if part is None else part for own, part in zip(state, parts, strict=True)]
            )
    return result


def _lengths(parts: Sequence[Tensor]) -> Tensor:
    """Return the length over all parts for each sample, [B]; a state of one dimension is a single sample."""
    squares = [part.double().square().reshape(len(part) if part.ndim > 1 else 1, -1).sum(1) for part in parts]
    return torch.stack(squares).sum(0).sqrt()


def _slopes(logs: Tensor) -> Tensor:
    """Return the slope of each sample's log influence over the lags, [samples], after the transient."""
    usable = ((logs > math.log(_SMALLEST)) & (logs < math.log(_LARGEST))).long().cumprod(0).sum(0)
    slopes = []
    for sample, end in enumerate(usable.tolist()):
        if end < 2:
            slopes.append(float((logs[1, sample] - logs[0, sample]).clamp(max=math.log(_LARGEST))))
            continue
        start = min(int(_TRANSIENT_SHARE * end), end - 2)
        lags = torch.arange(end - start, dtype=torch.float64)
        lags = lags - lags.mean()
        slopes.append(float(lags @ logs[start:end, sample] / (lags @ lags)))
    return torch.tensor(slopes, dtype=torch.float64)


def _name(key: Key, names: dict[nn.Module, str]) -> str:
    module, layer, direction = key
    name = names[module]
    if isinstance(module, nn.RNNBase):
        name += f", layer {layer}" if module.num_layers > 1 else ""
        name += ", backwards" if direction else ""
    return name
