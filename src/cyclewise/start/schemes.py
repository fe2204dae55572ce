"""How the weights are drawn: a distribution and a gain for each kind of layer."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cyclewise._validation import positive, random_seed
from cyclewise.errors import ArgumentError
from cyclewise.start.space import Space, check_model
from cyclewise.start.variables import Choice, Coordinates, Point, Variable
from cyclewise.stepping import forward

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "convolution": (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED),
    "recurrent": (nn.RNNBase, nn.RNNCellBase),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
}
_AS_IS = "as it is"
_LSUV_ROUNDS = 3


class InitScheme(Space):
    """A distribution for each kind of layer, and a log-scaled gain from `lower` to `upper`.

    The distributions, all for trained weights with two dimensions or more, biases as they are:

    - "xavier": normal with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010);
    - "he": normal with variance ``2 / fan_in`` (arXiv:1502.01852);
    - "orthogonal": orthonormal rows or columns (arXiv:1312.6120);
    - "lsuv": orthonormal, then each layer scaled so that its output on `inputs` has variance 1, in the order in which
      the layers run (arXiv:1511.06422); offered where `inputs` are given.

    Args:
        model: the model; it is not written to.
        lower, upper: the range of the gains.
        vary_gain: whether the gain varies at all.
        inputs: a batch of inputs, as the model takes them: a tensor, a tuple, or a dict.
        seed: of the draws; the same for every candidate.

    Raises:
        ArgumentError: an argument cannot work, or no layer is of a kind that has a scheme.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> print(InitScheme(model).describe())
    the initial distribution of linear layers (as it is, xavier, he, orthogonal), with a gain from 0.2 to 5
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lower: float = 0.2,
        upper: float = 5.0,
        vary_gain: bool = True,
        inputs: Any = None,
        seed: int = 0,
    ) -> None:
        check_model(model)
        self.model = model
        self.lower = positive("lower", lower, way_out="pass the smallest gain, for example 0.2")
        self.upper = positive("upper", upper, way_out="pass the largest gain, for example 5")
        if not self.lower < 1 < self.upper:
            raise ArgumentError(
                f"lower and upper must lie on both sides of 1, got {lower!r} and {upper!r}; pass for example 0.2 and 5"
            )
        self.vary_gain = vary_gain
        self.seed = random_seed("seed", seed, way_out="pass a whole number such as 0")
        self._inputs = inputs
        self._schemes = (_AS_IS, "xavier", "he", "orthogonal", *(("lsuv",) if inputs is not None else ()))
        self.kinds = tuple(
            kind
            for kind, classes in _KINDS.items()
            if any(isinstance(m, classes) and _weights(m) for m in model.modules())
        )
        if not self.kinds:
            raise ArgumentError(
                f"model must have trained layers of a kind that has schemes ({', '.join(_KINDS)}), got none; "
                "search factors with LayerGains(model)"
            )
        choices: list[Variable] = [Choice(kind, self._schemes) for kind in self.kinds]
        self._low, self._high = math.log(self.lower), math.log(self.upper)
        self._centre = round(-1 - 2 * self._low / (self._high - self._low), 12) + 0.0
        self.variables = (*choices, *((Coordinates("gains", len(self.kinds), self._centre),) if vary_gain else ()))

    def place(self, model: nn.Module, point: Point) -> None:
        """Draw the weights, then multiply by the gains."""
        generator = torch.Generator().manual_seed(self.seed)
        for module in model.modules():
            kind = _kind(module)
            if kind in self.kinds:
                for weight in _weights(module):
                    _draw(weight, str(point[kind]), module, generator)
        if "lsuv" in (point[kind] for kind in self.kinds):
            self._unit_variance(model, point)
        if not self.vary_gain:
            return
        gains = self.gains(point)
        seen: set[int] = set()
        for module in model.modules():
            for weight in _weights(module) if (kind := _kind(module)) in self.kinds else ():
                if id(weight) not in seen:
                    seen.add(id(weight))
                    weight.mul_(gains[str(kind)])

    def gains(self, point: Point) -> dict[str, float]:
        """Return the gain of each kind of layer."""
        places = point.get("gains")
        if not isinstance(places, (tuple, list)):
            return dict.fromkeys(self.kinds, 1.0)
        width = self._high - self._low
        return {k: math.exp((z - self._centre) / 2 * width) for k, z in zip(self.kinds, places, strict=True)}

    def describe(self) -> str:
        """Return the kinds of layers, the distributions, and the range of the gains."""
        gain = f", with a gain from {self.lower:g} to {self.upper:g}" if self.vary_gain else ""
        return f"the initial distribution of {' and '.join(self.kinds)} layers ({', '.join(self._schemes)}){gain}"

    def _unit_variance(self, model: nn.Module, point: Point) -> None:
        chosen = [m for m in model.modules() if point.get(_kind(m) or "") == "lsuv" and _weights(m)]
        # A scratch copy runs: its hooks, batch statistics and modes are nobody's.
        scratch = copy.deepcopy(model).eval()
        places = {id(m): i for i, m in enumerate(model.modules())}
        twins = list(scratch.modules())
        order: list[int] = []
        outputs: dict[int, Tensor] = {}

        def remember(place: int) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if place not in outputs:
                    order.append(place)
                first = output
                while isinstance(first, (tuple, list)):
                    first = first[0]
                outputs[place] = first.detach()

            return hook

        for module in chosen:
            twins[places[id(module)]].register_forward_hook(remember(places[id(module)]))
        forward(scratch, self._inputs)
        for place in list(order):
            for _ in range(_LSUV_ROUNDS):
                spread = float(outputs[place].double().std())
                if not math.isfinite(spread) or spread <= 0 or abs(spread - 1) < 0.01:
                    break
                for weight in _weights(twins[place]):
                    weight.div_(spread)
                outputs.pop(place)
                forward(scratch, self._inputs)
        for module in chosen:
            for ours, theirs in zip(_weights(module), _weights(twins[places[id(module)]]), strict=True):
                ours.copy_(theirs)


def _kind(module: nn.Module) -> str | None:
    return next((kind for kind, classes in _KINDS.items() if isinstance(module, classes)), None)


def _weights(module: nn.Module) -> Sequence[nn.Parameter]:
    return [p for p in module.parameters(recurse=False) if p.requires_grad and p.ndim >= 2]


def _draw(weight: Tensor, scheme: str, module: nn.Module, generator: torch.Generator) -> None:
    if scheme == _AS_IS:
        return
    for block in _blocks(weight, module):
        draws = torch.empty(block.shape, dtype=torch.float32)
        if scheme in ("orthogonal", "lsuv"):
            nn.init.orthogonal_(draws, generator=generator)
        elif scheme == "he":
            nn.init.kaiming_normal_(draws, nonlinearity="relu", generator=generator)
        else:
            nn.init.xavier_normal_(draws, generator=generator)
        block.copy_(draws)


def _blocks(weight: Tensor, module: nn.Module) -> Sequence[Tensor]:
    """Return the matrices that a weight is made of, outputs along the first dimension and inputs along the second."""
    if isinstance(module, _TRANSPOSED):
        return [group.transpose(0, 1) for group in weight.chunk(module.groups)]
    # Recurrent layers keep the matrices of their gates in one tensor, one above the other. The matrix that projects the
    # state (`proj_size`) is one, and has fewer rows.
    gates = _num_gates(module)
    return weight.chunk(gates) if len(weight) == gates * getattr(module, "hidden_size", 0) else [weight]


def _num_gates(module: nn.Module) -> int:
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return 4
    return 3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 1
