"""Products of the Hessian of a mean loss with vectors, without the Hessian.

Two forms give the same product H v. Reverse over reverse differentiates g'v, where the gradient g was computed with its
graph; that graph is kept between products while it fits into memory, so that a product is one more backward pass
(Pearlmutter, Neural Computation 6, 1994). Forward over reverse carries the derivative along v through the forward and
the backward pass, and needs no graph of the backward pass; it stands in where an operation has no second reverse
derivative. `benchmarks/hessian.py` measures them, on an MLP, convolutions with and without batch norm, and a
transformer: the kept graph was the fastest on every one of them.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cyclewise.errors import ArgumentError
from cyclewise.landscape.costs import BLOCK_COST, BUILD_COST, FORWARD_COST, KEPT_COST, REVERSE_COST
from cyclewise.landscape.culprit import nodes_of, not_twice

if TYPE_CHECKING:
    from cyclewise.landscape.objective import Objective

# Products at once win while the graphs are this small: above, single products keep their data in the cache. Measured on
# MLPs of 227 numbers on one CPU core; a GPU is not full before.
_MOST_BLOCK_BYTES = 2**18
_MOST_BLOCK_BYTES_GPU = 2**26


@dataclass(frozen=True)
class Gradient:
    """A gradient with its graph, to be differentiated once more, and where the graph meets the parameters.

    The parameters' own edges would be lost when a parameter is exchanged for its copy in another precision and back.
    """

    values: tuple[Tensor, ...]
    edges: tuple[GradientEdge, ...]
    nodes: tuple[Any, ...]

    @classmethod
    def of(cls, loss: Tensor, parameters: Sequence[Tensor]) -> "Gradient":
        """Return the gradient of `loss`."""
        with _second_derivatives():
            values = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            nodes = nodes_of(values)
        return cls(values, tuple(map(get_gradient_edge, parameters)), tuple(nodes))

    def product(self, vector: Sequence[Tensor], *, is_kept: bool, is_batched: bool = False) -> list[Tensor]:
        """Return H v, shaped like the parameters; with a further first dimension for a batch of vectors."""
        # A loss that is linear in some parameters has a gradient without a graph there: no curvature.
        pairs = [(g, v) for g, v in zip(self.values, vector, strict=True) if g.requires_grad]
        if not pairs:
            return [torch.zeros_like(v) for v in vector]
        gradients, vectors = zip(*pairs, strict=True)
        with _second_derivatives():
            products = torch.autograd.grad(
                gradients, self.edges, vectors, retain_graph=is_kept, allow_unused=True, is_grads_batched=is_batched
            )
        return [torch.zeros_like(v) if p is None else p for p, v in zip(products, vector, strict=True)]


class Products:
    """The products of one objective's Hessian, and the gradient graphs that are kept for them.

    Args:
        objective: the function whose Hessian it is.
        most_bytes: memory for kept graphs; batches that do not fit are run through the model at each product.
    """

    def __init__(self, objective: "Objective", most_bytes: int) -> None:
        self._objective = objective
        self._room = float(most_bytes)
        self._kept: dict[int, Gradient] = {}
        self._key: Any = None
        self._refusal: _NoSecondDerivativeError | None = None
        self._graph_bytes: float | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sum over this rank's batches of H v, [P]."""
        objective = self._objective
        self._forget_if_moved()
        total = objective.zeros()
        parts = objective.split(vector)
        for index in range(objective.num_batches):
            total += objective.flatten(self._product(index, parts))
        return total

    def block(self, vectors: Tensor) -> Tensor:
        """Return the sums for several vectors at once, [k, P] for [k, P]."""
        objective = self._objective
        self._forget_if_moved()
        total = torch.zeros_like(vectors)
        parts = [torch.stack(rows) for rows in zip(*map(objective.split, vectors), strict=True)]
        if not self.prefers_blocks():
            return torch.stack([self(vector) for vector in vectors])
        for index in range(objective.num_batches):
            gradient = self._kept_gradient(index)
            assert gradient is not None
            objective.cost += BLOCK_COST * len(vectors) / objective.num_batches
            try:
                with warnings.catch_warnings(), objective.still(index, twice=True):
                    # That an operation is looped over instead of batched is slower, not wrong.
                    warnings.simplefilter("ignore")
                    rows = gradient.product(parts, is_kept=True, is_batched=True)
            except _NoSecondDerivativeError:
                return torch.stack([self(vector) for vector in vectors])
            total += torch.cat([row.reshape(len(vectors), -1).to(objective.dtype) for row in rows], dim=1)
        return total

    def gradient(self) -> Tensor | None:
        """Return the sum over this rank's batches of the gradients, [P], if all their graphs are kept; else None."""
        self._forget_if_moved()
        kept = [self._kept_gradient(index) for index in range(self._objective.num_batches)]
        total = self._objective.zeros()
        for gradient in kept:
            if gradient is None:
                return None
            total += self._objective.flatten(gradient.values)
        return total

    def cost(self) -> float:
        """Return what the next product costs, in gradient evaluations, once the graphs are there."""
        self._forget_if_moved()
        if self._refusal is not None:
            return FORWARD_COST
        num_kept = sum(self._kept_gradient(index) is not None for index in range(self._objective.num_batches))
        fraction = num_kept / self._objective.num_batches
        return fraction * KEPT_COST + (1.0 - fraction) * REVERSE_COST

    def prefers_blocks(self) -> bool:
        """Return whether several products at once are cheaper than one by one: where overhead is most of the time."""
        self._forget_if_moved()
        if self._kept_gradient(0) is None or self._graph_bytes is None:
            return False
        total = self._graph_bytes * self._objective.num_batches
        most = _MOST_BLOCK_BYTES if self._objective.device.type == "cpu" else _MOST_BLOCK_BYTES_GPU
        return total <= min(most, self._room)

    def release(self) -> None:
        """Let go of the kept graphs and their memory."""
        self._kept.clear()

    def _forget_if_moved(self) -> None:
        key = self._objective.version()
        if key != self._key:
            self.release()
            self._key = key

    def _product(self, index: int, parts: list[Tensor]) -> Sequence[Tensor]:
        if self._refusal is None:
            try:
                return self._reverse(index, parts)
            except _NoSecondDerivativeError as error:
                self._refuse(error)
        assert self._refusal is not None
        objective = self._objective
        objective.cost += FORWARD_COST / objective.num_batches
        try:
            with objective.still(index, twice=True):
                return forward_over_reverse(
                    objective.model, lambda: objective.batch_loss(index), objective.named, parts
                )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ArgumentError) as error:
            # On the way back the batch has just run: what one of torch's own losses now refuses is a dual tensor.
            raise not_twice(objective, index, self._refusal) from error

    def _reverse(self, index: int, parts: list[Tensor]) -> Sequence[Tensor]:
        objective = self._objective
        gradient = self._kept_gradient(index)
        if self._refusal is not None:
            raise self._refusal
        objective.cost += (REVERSE_COST if gradient is None else KEPT_COST) / objective.num_batches
        if gradient is not None:
            with objective.still(index):
                return gradient.product(parts, is_kept=True)
        with objective.still(index, twice=True):
            return reverse_over_reverse(objective.batch_loss(index), objective.parameters, parts)

    def _refuse(self, error: "_NoSecondDerivativeError") -> None:
        self._refusal = error
        self.release()

    def _kept_gradient(self, index: int) -> Gradient | None:
        """Return the batch's gradient with a graph to keep; None where that does not fit into memory."""
        if index in self._kept:
            return self._kept[index]
        objective = self._objective
        does_not_fit = self._graph_bytes is not None and (len(self._kept) + 1) * self._graph_bytes > self._room
        if self._refusal is not None or does_not_fit:
            return None
        objective.cost += BUILD_COST / objective.num_batches
        with objective.still(index, twice=True):
            loss = objective.batch_loss(index)
            try:
                gradient = Gradient.of(loss, objective.parameters)
            except _NoSecondDerivativeError as error:
                self._refuse(error)
                return None
        if self._graph_bytes is None:
            # One graph fits into memory if a product can be made at all. The others are taken to be as large.
            self._graph_bytes = float(kept_bytes(gradient, objective.model))
            if self._graph_bytes > self._room:
                return None
        self._kept[index] = gradient
        return gradient


def reverse_over_reverse(loss: Tensor, parameters: Sequence[Tensor], vector: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return H v as the gradient of g'v, with v and the result shaped like the parameters."""
    return Gradient.of(loss, parameters).product(vector, is_kept=False)


def forward_over_reverse(
    model: nn.Module, loss: Callable[[], Tensor], named: Mapping[str, Tensor], vector: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return H v as the derivative of the gradient along v.

    Args:
        model: the model.
        loss: runs the model and returns its loss.
        named: the parameters by their names in the model.
        vector: v, shaped like the parameters.
    """
    with warnings.catch_warnings(), forward_ad.dual_level():
        # The first dual tensor of a process has torch load decompositions that it deprecates itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        duals = {
            f"model.{name}": forward_ad.make_dual(parameter.detach().requires_grad_(), v)  # type: ignore[no-untyped-call]
            for (name, parameter), v in zip(named.items(), vector, strict=True)
        }
        value = torch.func.functional_call(_Loss(model, loss), duals, ())
        gradient = torch.autograd.grad(value, list(duals.values()), materialize_grads=True)
        tangents = [forward_ad.unpack_dual(g).tangent for g in gradient]  # type: ignore[no-untyped-call]
    return [torch.zeros_like(v) if t is None else t for t, v in zip(tangents, vector, strict=True)]


def kept_bytes(gradient: Gradient, module: nn.Module) -> int:
    """Return the bytes that the graph of a gradient keeps alive, each storage once, the module's own left out."""
    present = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    names: dict[type, list[str]] = {}
    sizes: dict[int, int] = {}
    for node in gradient.nodes:
        kind = type(node)
        if kind not in names:
            names[kind] = [name for name in dir(kind) if name.startswith("_saved_")] or ["saved_tensors"]
        for name in names[kind]:
            saved = getattr(node, name, None)
            for tensor in saved if isinstance(saved, tuple) else (saved,):
                # The zeros that a forward derivative begins with take up no memory.
                if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not torch._is_zerotensor(tensor):
                    storage = tensor.untyped_storage()
                    if storage.data_ptr() not in present:
                        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


class _NoSecondDerivativeError(RuntimeError):
    """Torch could not differentiate a second time."""


@contextmanager
def _second_derivatives() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _NoSecondDerivativeError(str(error)) from error


class _Loss(nn.Module):
    """A loss as a module, so that its model's parameters can be exchanged while it runs."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor]) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self._loss = loss

    def forward(self) -> Tensor:
        return self._loss()
