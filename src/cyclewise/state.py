"""No trace: remember everything a measurement may touch, and give it back bit for bit, however the measurement ends.

:class:`Snapshot` walks from the objects it is given through their attributes and containers. For each thing that can
change it remembers the object itself and what was in it: tensors (values, storage, gradient, ``requires_grad``),
containers and plain attributes (so modes, hooks, counters, ``param_groups`` and optimizer state are included), random
number generators, and the global generators of Python, NumPy, torch and CUDA. :class:`preserve` is the context manager
around it.

One copy of every tensor is held. Loaders and data sets are walked for their counters and generators; the tensors and
arrays in them are data, not state, and are not copied.
"""

import functools
import random
import signal
import threading
import types
from array import array
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from cyclewise.errors import ArgumentError

# A data set may hold a list of millions of file names; its state, if any, is in small things.
_LARGEST_DATASET_CONTAINER = 10_000

# Runtime machinery that belongs to a process, not to a training run: giving back its fields could only break it.
_MACHINERY = (
    "_thread",
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "queue",
    "socket",
    "threading",
    "torch._C",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed",
    "weakref",
)
_WRAPPERS = ("torch.nn.parallel", "torch.distributed")
_NOT_WALKED = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    types.ModuleType,
    types.FunctionType,
    PurePath,
    torch.dtype,
    torch.device,
    torch.Size,
)

Restorer = Callable[[], None]
_UNSET = object()


class Snapshot:
    """What was in some objects, and everything reachable from them, at one moment.

    Args:
        objects: modules, optimizers, scalers, schedulers, tensors, generators, or containers of these; None is skipped.
        data: loaders and data sets: walked too, but the tensors and arrays in them are not copied.

    Raises:
        ArgumentError: a module has parameters that are not initialised yet.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> before = layer.weight.clone()
        >>> snapshot = Snapshot(layer)
        >>> _ = torch.nn.init.zeros_(layer.weight)
        >>> snapshot.restore()
        >>> torch.equal(layer.weight, before)
        True
    """

    def __init__(self, *objects: object, data: Sequence[object] = ()) -> None:
        self._restorers: list[Restorer] = []
        # Holding the objects keeps their ids from being reused while the snapshot lives.
        self._seen: dict[int, object] = {}
        self._pending: deque[tuple[object, bool]] = deque((item, False) for item in data)
        self._pending.extend((item, True) for item in objects)
        while self._pending:
            self._visit(*self._pending.popleft())
        self._restorers.append(_global_generators())

    def restore(self) -> None:
        """Put everything back; may be called any number of times."""
        with torch.no_grad():
            for restore in self._restorers:
                restore()

    def generators(self) -> list[Any]:
        """Return the random number generators that were found, in the order of the walk; the global ones are not."""
        kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
        return [item for item in self._seen.values() if isinstance(item, kinds)]

    def _visit(self, item: object, copies_tensors: bool) -> None:
        if isinstance(item, _NOT_WALKED) or id(item) in self._seen:
            return
        self._seen[id(item)] = item
        if isinstance(item, Tensor):
            if copies_tensors:
                self._restorers.append(_tensor(item))
        elif isinstance(item, (np.ndarray, array, bytearray)):
            if copies_tensors:
                self._restorers.append(_array(item))
        elif (restorer := _generator(item)) is not None:
            self._restorers.append(restorer)
        elif isinstance(item, (list, dict, set, deque, MutableMapping)):
            if copies_tensors or len(item) <= _LARGEST_DATASET_CONTAINER:
                self._restorers.append(_container(item))
                self._walk(item.values() if isinstance(item, (dict, MutableMapping)) else item, copies_tensors)
        elif isinstance(item, (tuple, frozenset)):
            self._walk(item, copies_tensors)
        elif isinstance(item, (types.MethodType, types.BuiltinFunctionType, functools.partial)):
            self._walk(_bound(item), copies_tensors)
        elif isinstance(item, nn.Module) and type(item).__module__.startswith(_WRAPPERS):
            self._restorers.append(_attribute(item, "training"))
            self._walk((item._parameters, item._buffers, item._modules), copies_tensors)
        elif not type(item).__module__.startswith(_MACHINERY) and not _is_running_iterator(item):
            copies_tensors = copies_tensors and not isinstance(item, Dataset)
            attributes = getattr(item, "__dict__", None)
            if isinstance(attributes, dict):
                self._visit(attributes, copies_tensors)
            if slots := _slots(item):
                self._restorers.append(_slotted(item, slots))
                self._walk((value for _, value in slots), copies_tensors)

    def _walk(self, items: Any, copies_tensors: bool) -> None:
        self._pending.extend((item, copies_tensors) for item in items)


class preserve:
    """Give the objects back as they were when the block ends, also after an exception or Ctrl-C.

    The restore itself is shielded from Ctrl-C: an interrupt that arrives meanwhile is raised when it is complete.

    Args:
        objects: as for :class:`Snapshot`; closures are not looked into, so name what they hide.
        data: as for :class:`Snapshot`.

    Raises:
        ArgumentError: a module has parameters that are not initialised yet.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> before = model.weight.clone()
        >>> with preserve(model, optimizer):
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
        >>> torch.equal(model.weight, before), model.weight.grad, dict(optimizer.state)
        (True, None, {})
    """

    def __init__(self, *objects: object, data: Sequence[object] = ()) -> None:
        self._objects = objects
        self._data = data

    def __enter__(self) -> Snapshot:
        self._snapshot = Snapshot(*self._objects, data=self._data)
        return self._snapshot

    def __exit__(self, *exception: object) -> None:
        try:
            with deferred_interrupts():
                self._snapshot.restore()
        except KeyboardInterrupt:
            # It may have come just before the shield was up; restoring twice does no harm.
            with deferred_interrupts():
                self._snapshot.restore()
            raise


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends, then deliver it; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, types.FrameType | None]] = []
    previous = signal.getsignal(signal.SIGINT)
    if previous is None:  # a handler that was not installed from Python, and could not be put back
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            if callable(previous):
                previous(*received[0])
            elif previous == signal.SIG_DFL:
                raise KeyboardInterrupt


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU and accelerators) with `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _tensor(tensor: Tensor) -> Restorer:
    if is_lazy(tensor):
        raise ArgumentError(
            "model must have initialised parameters, got a lazy layer that has not seen a batch; "
            "run one batch through the model first"
        )
    storage = tensor.detach()  # the same memory: found again if somebody swaps `tensor.data`
    value = storage.clone()
    is_leaf, requires_grad = tensor.is_leaf, tensor.requires_grad
    gradient = tensor.grad if is_leaf else None
    gradient_value = None if gradient is None else gradient.detach().clone()

    def restore() -> None:
        storage.copy_(value)
        if tensor.shape != storage.shape or not _same_memory(tensor, storage):
            tensor.data = storage
        if not is_leaf:
            return
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        if gradient is not None and gradient_value is not None:
            gradient.detach().copy_(gradient_value)
        if tensor.grad is not gradient:
            tensor.grad = gradient

    return restore


def _same_memory(first: Tensor, second: Tensor) -> bool:
    if first.layout != torch.strided or second.layout != torch.strided:
        return True
    return first.data_ptr() == second.data_ptr() and first.stride() == second.stride()


def _array(values: Any) -> Restorer:
    kept = values[:] if not isinstance(values, np.ndarray) else values.copy()

    def restore() -> None:
        if isinstance(values, np.ndarray):
            if values.flags.writeable:
                values[...] = kept
        elif values != kept:
            # While somebody looks at its memory it cannot change its size, and all else has to be given back.
            with suppress(BufferError):
                values[:] = kept

    return restore


def _bound(function: Any) -> tuple[object, ...]:
    """Return what a bound method or a partial carries along."""
    if isinstance(function, functools.partial):
        return (function.func, function.args, function.keywords)
    return (function.__self__,)


def _slots(item: object) -> list[tuple[Any, Any]]:
    """Return what reads and writes each attribute that lives in ``__slots__``, and its value, `_UNSET` where unset."""
    kinds = [vars(kind).values() for kind in type(item).__mro__ if "__slots__" in vars(kind)]
    places = [place for kind in kinds for place in kind if isinstance(place, types.MemberDescriptorType)]
    return [(place, _in_slot(place, item)) for place in places]


def _in_slot(place: Any, item: object) -> Any:
    # Not by its name: a property may have taken that over.
    try:
        return place.__get__(item)
    except AttributeError:
        return _UNSET


def _slotted(item: object, slots: list[tuple[Any, Any]]) -> Restorer:
    def restore() -> None:
        for place, value in slots:
            now = _in_slot(place, item)
            if value is _UNSET and now is not _UNSET:
                place.__delete__(item)
            elif now is not value:
                place.__set__(item, value)

    return restore


def _container(container: Any) -> Restorer:
    if isinstance(container, (dict, MutableMapping)):
        items = list(container.items())

        def restore() -> None:
            now = list(container.items())
            if len(now) != len(items) or any(
                a[0] is not b[0] or a[1] is not b[1] for a, b in zip(now, items, strict=True)
            ):
                container.clear()
                container.update(items)

    elif isinstance(container, set):
        members = set(container)

        def restore() -> None:
            container.clear()
            container.update(members)

    else:
        elements = list(container)

        def restore() -> None:
            if len(container) != len(elements) or any(a is not b for a, b in zip(container, elements, strict=True)):
                container.clear()
                container.extend(elements)

    return restore


def _attribute(item: object, name: str) -> Restorer:
    value = getattr(item, name)
    return lambda: setattr(item, name, value)


def _generator(item: object) -> Restorer | None:
    if isinstance(item, torch.Generator):
        state = item.get_state()

        def restore() -> None:
            item.set_state(state)

        return restore
    if isinstance(item, np.random.Generator):
        bits = item.bit_generator
        bits_state = bits.state
        return lambda: setattr(bits, "state", bits_state)
    if isinstance(item, np.random.RandomState):
        legacy_state = item.get_state()
        return lambda: item.set_state(legacy_state)
    if isinstance(item, random.Random):
        python_state = item.getstate()
        return lambda: item.setstate(python_state)
    return None


def _global_generators() -> Restorer:
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def restore() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)

    return restore


def _is_running_iterator(item: object) -> bool:
    # Loader iterators, generators, files: their position cannot be given back by setting fields.
    return hasattr(item, "__next__")
