"""The mean loss over some batches as a function of the parameters: the one thing that every measurement here asks.

Vectors over the parameters are flat tensors of shape [P], in the order of :attr:`Objective.parameters`: each parameter
that requires a gradient once, also where it is tied.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cyclewise._validation import instance
from cyclewise.copies import copied
from cyclewise.errors import ArgumentError
from cyclewise.landscape.costs import BLOCK_COST
from cyclewise.landscape.costs import LOSS_COST as LOSS_COST
from cyclewise.landscape.culprit import refuse_reentrant
from cyclewise.landscape.hvp import Products
from cyclewise.landscape.stillness import Stillness, converted
from cyclewise.loaders import Batches
from cyclewise.mismatch import check_loss_fn
from cyclewise.ranks import is_distributed, mean_over_ranks, sum_over_ranks
from cyclewise.stepping import LossFunction, batch_loss, device_of, split_batch

_MOST_BYTES = 2 * 2**30


class Objective:
    """The mean loss over the batches as a function of the parameters, everything else held still.

    It is the plain mean of the batches' losses: each batch counts the same, whatever its size. In a distributed run
    each rank gives its own batches, and losses, gradients and products are those of all ranks' batches.

    The model keeps its mode (dropout drops in train mode), but batch norm normalises by its running statistics, or, if
    it has seen no batch yet, by the mean statistics of the given ones; dropout masks are the same at every evaluation.
    Between evaluations the model, its buffers and all generators have the bits they had.

    Args:
        model: the model; its parameters that require a gradient are the function's argument.
        loss_fn: ``loss_fn(outputs, targets) -> scalar tensor``; None takes ``output.loss`` for dict batches.
        batches: a list of batches or a loader; one batch is enough. Copies of all of them are kept in memory.
        dtype: the precision to evaluate in, for example ``torch.float64``; None keeps the model's own, but half
            precisions become float32.
        seed: of the dropout masks; batch i draws them from ``seed + i``.
        freezes_batch_norm: False lets batch norm in train mode normalise by each batch, as it does in training.
        most_bytes: memory that products may keep between them, see :meth:`product`.

    Attributes:
        model, loss_fn: as given.
        batches: the list of copies, on the model's device; the model is given another copy at every evaluation.
        parameters: the parameters that require a gradient, each once.
        names: their names in the model.
        named: both, name to parameter.
        num_parameters: P, the numbers in them.
        num_batches: on this rank.
        num_all_batches: on all ranks together.
        first_batch: how many the ranks before this one have.
        device: of the model.
        dtype: of the flat vectors.
        cost: what has been spent, in gradient evaluations: one is forward and backward over all batches.

    Raises:
        ArgumentTypeError: `model` is no module, `loss_fn` is no function, or `batches` can be iterated only once.
        ArgumentError: no parameter requires a gradient, one that does is complex, or there is no batch.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> batch = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> objective = Objective(model, nn.functional.mse_loss, [batch])  # (a^2 + 4 b^2) / 2
        >>> objective.loss(), objective.gradient()
        (2.5, tensor([1., 4.]))
        >>> objective.product(torch.tensor([0.0, 1.0]))
        tensor([0., 4.])
        >>> with objective.moved(objective.gradient(), -0.25):
        ...     objective.loss()
        0.28125
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None,
        batches: Any,
        *,
        dtype: torch.dtype | None = None,
        seed: int = 0,
        freezes_batch_norm: bool = True,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        instance("model", model, nn.Module, "a torch.nn.Module", way_out="pass the model that is to be measured")
        check_loss_fn(loss_fn)
        self.model = _unwrapped(model)
        self.loss_fn = loss_fn
        self.device = device_of(self.model)
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if not named:
            raise ArgumentError(
                "model must have a parameter that requires a gradient, got none; "
                "unfreeze the part that is to be measured: parameter.requires_grad_(True)"
            )
        if unreal := [(name, p.dtype) for name, p in named if p.is_complex()]:
            raise ArgumentError(
                f"model must have real parameters where its landscape is measured, got {unreal[0][0]!r} of "
                f"{unreal[0][1]}; keep its two parts in a real parameter of one dimension more, and call "
                "torch.view_as_complex on it in forward(); or leave it out of the measurement: requires_grad_(False)"
            )
        self.named = dict(named)
        self.names = list(self.named)
        self.parameters = list(self.named.values())
        self.num_parameters = sum(p.numel() for p in self.parameters)
        if dtype is None and any(p.dtype in (torch.float16, torch.bfloat16) for p in self.parameters):
            dtype = torch.float32
        self.dtype = dtype or torch.promote_types(self.parameters[0].dtype, self.parameters[-1].dtype)
        self.cost = 0.0
        self._is_known_to_pass = False
        self.most_bytes = most_bytes
        self.batches = [converted(batch, dtype) for batch in listed(batches, self.device)]
        self.num_batches = len(self.batches)
        everything = list(self.model.parameters())
        self.first_batch, self.num_all_batches = _share(self.num_batches, self.device)
        self._stillness = Stillness(self.model, everything, dtype, seed + self.first_batch, freezes_batch_norm, loss_fn)
        places = {id(p): i for i, p in enumerate(everything)}
        self._values = [self._stillness.values[places[id(p)]] for p in self.parameters]
        self._products = Products(self, most_bytes)
        self._stillness.calibrate(self._pass_all)

    def loss(self) -> float:
        """Return the mean loss over the batches."""
        total = sum(self._losses(), torch.zeros((), dtype=torch.float64, device=self.device))
        return float(self._over_ranks(total))

    def batch_losses(self) -> list[float]:
        """Return the loss of each batch of this rank."""
        return [float(loss) for loss in self._losses()]

    def gradient(self, *, before_products: bool = False) -> Tensor:
        """Return the gradient of the mean loss, [P].

        Args:
            before_products: whether products at these parameters follow: what they keep is built at once, where it fits
                into memory, and the gradient then costs nothing of its own.
        """
        kept = self._products.gradient() if before_products else None
        if kept is not None:
            return self._over_ranks(kept)
        total = self.zeros()
        for index in range(self.num_batches):
            total += self.batch_gradient(index)
        return self._over_ranks(total)

    def batch_gradient(self, index: int) -> Tensor:
        """Return the gradient of the loss of one batch of this rank, [P]."""
        with self.still(index):
            loss = self.batch_loss(index)
            if not self._is_known_to_pass:
                refuse_reentrant(loss)
                self._is_known_to_pass = True
            gradient = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            self.cost += 1.0 / self.num_batches
            return self.flatten(gradient)

    def product(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the mean loss times `vector` ([P]), [P].

        The graph of the gradient is kept for the next product while it fits into `most_bytes`, until the parameters
        change by torch's in-place operations, or :meth:`release`.
        """
        return self._over_ranks(self._products(vector))

    def products(self, vectors: Tensor) -> Tensor:
        """Return the Hessian times each row of `vectors` ([k, P]), [k, P]: cheaper than one by one if P is small."""
        return self._over_ranks(self._products.block(vectors))

    def product_cost(self) -> float:
        """Return what one further product costs, in gradient evaluations."""
        return mean_over_ranks([self._products.cost()], self.device)[0]

    def column_cost(self) -> float:
        """Return what one of many products by :meth:`products` costs, in gradient evaluations."""
        own = BLOCK_COST if self._products.prefers_blocks() else self._products.cost()
        return mean_over_ranks([own], self.device)[0]

    def agree_on_cost(self) -> None:
        """Give all ranks the same `cost`, so that they decide alike on what the budget still allows."""
        self.cost = mean_over_ranks([self.cost], self.device)[0]

    def release(self) -> None:
        """Let go of the memory that products keep."""
        self._products.release()

    def version(self) -> tuple[int, ...]:
        """Return a number per tensor of the model that changes whenever its content does."""
        return self._stillness.version()

    @contextmanager
    def moved(self, vector: Tensor, factor: float = 1.0) -> Iterator[None]:
        """Add ``factor * vector`` to the parameters while the block runs; then they get their bits back.

        Evaluations of this objective see the moved parameters; so does the model itself, unless `dtype` had it copied.
        """
        before = [value.clone() for value in self._values]
        try:
            with torch.no_grad():
                for value, part in zip(self._values, self.split(vector), strict=True):
                    value.add_(part, alpha=factor)
            yield
        finally:
            with torch.no_grad():
                for value, old in zip(self._values, before, strict=True):
                    value.copy_(old)

    def still(self, index: int, *, twice: bool = False) -> AbstractContextManager[None]:
        """Return the context in which batch `index` is evaluated; for measurements that run the model themselves.

        Args:
            index: the batch whose dropout masks are drawn.
            twice: whether second derivatives are wanted, which fused attention and cuDNN's recurrences do not have.
        """
        return self._stillness.hold(index, twice=twice)

    def batch_loss(self, index: int, *, batch: Any = None) -> Tensor:
        """Return the loss of batch `index` with its graph; call it inside :meth:`still`.

        Args:
            index: of the batch.
            batch: a copy of it that the model may write into, for who must know the tensors that the model is given.
        """
        own = copied(self.batches[index]) if batch is None else batch
        loss = batch_loss(self.model, self.loss_fn, own)
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ArgumentError(
                "loss_fn must return a loss that depends on the parameters, got one without a gradient; "
                "leave out detach(), item(), argmax() and no_grad() on the way to it"
            )
        return loss

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return the parts of a flat vector, shaped and typed like the parameters."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view(v.shape).to(v.dtype) for part, v in zip(parts, self._values, strict=True)]

    def flatten(self, parts: Sequence[Tensor]) -> Tensor:
        """Return tensors shaped like the parameters as one flat vector, [P]."""
        dense = [part.to_dense() if part.is_sparse else part for part in map(Tensor.detach, parts)]
        return torch.cat([part.reshape(-1).to(self.dtype) for part in dense])

    def zeros(self) -> Tensor:
        """Return a flat vector of zeros, [P]."""
        return torch.zeros(self.num_parameters, dtype=self.dtype, device=self.device)

    def _losses(self) -> list[Tensor]:
        losses = []
        for index in range(self.num_batches):
            with self.still(index), torch.no_grad():
                losses.append(self.batch_loss(index).double())
            self.cost += LOSS_COST / self.num_batches
        return losses

    def _pass_all(self) -> None:
        for index in range(self.num_batches):
            with self.still(index), torch.no_grad():
                self.batch_loss(index)

    def _over_ranks(self, total: Tensor) -> Tensor:
        """Return the sum over this rank's batches as the mean over all ranks' batches."""
        return sum_over_ranks(total) / self.num_all_batches


def listed(batches: Any, device: torch.device) -> list[Any]:
    """Return copies of the batches of a list or loader, on `device`, as a list.

    They are copied one by one, since a loader may fill one buffer again and again.

    Raises:
        ArgumentTypeError: they can be iterated only once.
        ArgumentError: there is none, it is the tensors of a single batch, or one is neither a dict nor has targets.
    """
    if isinstance(batches, (tuple, list)) and batches and all(isinstance(item, Tensor) for item in batches):
        raise ArgumentError(
            "batches must be a list of batches, got the tensors of a single one; pass [(inputs, targets)]"
        )
    result = []
    for batch in Batches(batches, name="batches").one_pass():
        if not isinstance(batch, Mapping):
            split_batch(batch, name="batches")
        result.append(copied(batch, device))
    return result


def _share(num_batches: int, device: torch.device) -> tuple[int, int]:
    """Return how many batches the lower ranks have, and how many all ranks have together."""
    if not is_distributed():
        return 0, num_batches
    counts = torch.zeros(torch.distributed.get_world_size(), device=device)
    counts[torch.distributed.get_rank()] = num_batches
    sum_over_ranks(counts)
    return int(counts[: torch.distributed.get_rank()].sum()), math.floor(counts.sum())


def _unwrapped(model: nn.Module) -> nn.Module:
    # DistributedDataParallel's hooks refuse torch.autograd.grad; the ranks are averaged here.
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
