"""Everything but the parameters held still, so that the loss of a batch is a function of the parameters alone.

While a batch is evaluated, batch norm normalises by fixed statistics, the global generators and those that model and
loss keep of their own start from the batch's own seed (so dropout drops the same units each time), embeddings have
dense gradients, and buffers that the forward pass writes are put back. In between, the model is as its owner left it:
modes, buffers and generators have the bits they had.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from cyclewise.landscape.precision import AtLeast
from cyclewise.state import Snapshot, preserve, seed_everything, seed_generator


@dataclass
class _Buffer:
    """A buffer, the tensor that stands for it during an evaluation, and its content, which an evaluation may change."""

    module: nn.Module
    name: str
    own: Tensor
    standing: Tensor
    content: Tensor
    version: int


class Stillness:
    """What an evaluation needs fixed, worked out once for a model.

    Args:
        model: the model, in the mode that is to be measured: in train mode dropout drops, in eval mode it does not.
        parameters: all parameters of the model, frozen ones too.
        dtype: the precision to evaluate in; None keeps each tensor's own.
        seed: the generators' seed for batch 0; batch i has ``seed + i``.
        freezes_batch_norm: False lets batch norm in train mode normalise by the batch, and only keeps it from noting
            the batch's statistics.
        loss_fn: the loss, which may keep a generator of its own too.

    Attributes:
        values: one tensor per parameter, whose content the evaluations use: the parameters' own memory, or the copies
            in `dtype`.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[Tensor],
        dtype: torch.dtype | None,
        seed: int,
        freezes_batch_norm: bool = True,
        loss_fn: Any = None,
    ) -> None:
        self._model = model
        self._parameters = list(parameters)
        self._dtype = dtype
        self._seed = seed
        self.values = [_converted(p.detach(), dtype) for p in parameters]
        self._own_values = [p.detach() for p in parameters]
        self._swaps = [
            i for i, (value, own) in enumerate(zip(self.values, self._own_values, strict=True)) if value is not own
        ]
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and _has_statistics(m)]
        # What a norm is told not to be: in train mode, or only keeping statistics.
        self._norm_switch = "training" if freezes_batch_norm else "track_running_stats"
        # Their gradients are the same numbers in another layout, which cannot be differentiated again.
        self._sparse = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse]
        self._buffers = []
        for module in model.modules():
            for name, tensor in module._buffers.items():
                if tensor is not None:
                    standing = _converted(tensor, dtype)
                    self._buffers.append(_Buffer(module, name, tensor, standing, standing.clone(), standing._version))
        self._generators = Snapshot(data=(model, loss_fn)).generators()
        self._is_random: bool | None = True if self._generators else None
        self._has_recurrence = any(isinstance(m, nn.RNNBase) and next(m.parameters()).is_cuda for m in model.modules())

    def calibrate(self, passes: Callable[[], None]) -> None:
        """Give each batch norm that has seen no batch yet the mean statistics of the batches that `passes` runs."""
        fresh = [norm for norm in self._norms if int(norm.num_batches_tracked or 0) == 0]
        if not fresh or self._norm_switch != "training":
            return
        norms, self._norms = self._norms, [norm for norm in self._norms if norm not in fresh]
        momenta = [norm.momentum for norm in fresh]
        buffers = [b for b in self._buffers if b.module in fresh]
        try:
            for norm in fresh:
                norm.momentum = None  # a plain mean over the batches
            self._buffers = [b for b in self._buffers if b not in buffers]
            for b in buffers:
                b.module._buffers[b.name] = b.standing = b.standing.clone()
            passes()
        finally:
            for norm, momentum in zip(fresh, momenta, strict=True):
                norm.momentum = momentum
            for b in buffers:
                b.module._buffers[b.name] = b.own
                b.content, b.version = b.standing.clone(), b.standing._version
            self._buffers += buffers
            self._norms = norms

    def version(self) -> tuple[int, ...]:
        """Return the versions of the tensors' contents; statistics and other buffers count with the parameters.

        A graph that is kept looks at the versions of the parameters themselves, also where it was made of their copies.
        """
        tensors = (*self.values, *self._own_values)
        return (*(tensor._version for tensor in tensors), *(b.version for b in self._buffers))

    @contextmanager
    def hold(self, index: int, *, twice: bool) -> Iterator[None]:
        """Hold everything still while batch `index` is evaluated.

        Args:
            index: of the batch, for its seed.
            twice: whether it will be differentiated twice: fused attention and cuDNN's recurrences cannot be, so their
                plain forms run instead.
        """
        with ExitStack() as stack:
            if self._is_random is not False:
                stack.enter_context(preserve(*self._generators))
                seed_everything(self._seed + index)
                for generator in self._generators:
                    seed_generator(generator, self._seed + index)
                before = _generator_states() if self._is_random is None else ()
            if twice:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._has_recurrence:
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            if self._dtype is not None:
                stack.enter_context(AtLeast(self._dtype))
            stack.enter_context(self._swapped())
            yield
            if self._is_random is None:
                self._is_random = before != _generator_states()

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        try:
            for i in self._swaps:
                self._parameters[i].data = self.values[i]
            for norm in self._norms:
                setattr(norm, self._norm_switch, False)
            for embedding in self._sparse:
                embedding.sparse = False
            for b in self._buffers:
                b.module._buffers[b.name] = b.standing
            yield
        finally:
            for i in self._swaps:
                self._parameters[i].data = self._own_values[i]
            for norm in self._norms:
                setattr(norm, self._norm_switch, True)
            for embedding in self._sparse:
                embedding.sparse = True
            for b in self._buffers:
                b.module._buffers[b.name] = b.own
                if b.standing._version != b.version:
                    b.standing.copy_(b.content)
                    b.version = b.standing._version


def converted(item: Any, dtype: torch.dtype | None) -> Any:
    """Return a batch with its floating-point tensors in `dtype`; containers keep their type."""
    if dtype is None:
        return item
    if isinstance(item, Tensor):
        return _converted(item, dtype)
    if isinstance(item, Mapping):
        values = {key: converted(value, dtype) for key, value in item.items()}
        return type(item)(values) if type(item) is not dict else values  # type: ignore[call-arg]
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(converted(value, dtype) for value in item))
    if isinstance(item, (tuple, list)):
        return type(item)(converted(value, dtype) for value in item)
    return item


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    return tensor.to(dtype)


def _has_statistics(norm: _BatchNorm) -> bool:
    return norm.running_mean is not None and norm.running_var is not None


def _generator_states() -> tuple[Any, ...]:
    numpy_state: Any = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    torch_states = [bytes(state.numpy()) for state in [torch.get_rng_state(), *cuda]]
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch_states
