"""No trace: remember everything a measurement may touch, and give it back bit for bit, however the measurement ends.

:class:`Snapshot` walks from the objects it is given through their attributes and containers. For each thing that can
change it remembers the object itself and what was in it: tensors (values, storage, gradient, ``requires_grad``),
containers and plain attributes (so modes, hooks, counters, ``param_groups`` and optimizer state are included), random
number generators, and the global generators of Python, NumPy, torch and CUDA. :class:`preserve` is the context manager
around it.

One copy of every tensor is held. Loaders and data sets are walked for their counters and generators; the tensors and
arrays in them are data, not state, and are not copied: but for rows of whole numbers of at most 16 MiB, and 64 MiB
together, which may be the order in which samples are taken, and shuffled in place.
"""

import functools
import random
import signal
import threading
import types
import weakref
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cyclewise import restorers

# A data set may hold a list of millions of file names; its state, if any, is in small things.
_LARGEST_DATASET_CONTAINER = 10_000
# A data set of thousands of short rows, each a text, holds no orders; those near the loader are met first.
_LARGEST_ORDERS = 2**26
# Of a longer list the order is remembered, up to so many items, and not what is in them.
_LARGEST_LIST = 2_000_000

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
_WRAPPERS = ("torch.nn.parallel", "torch.distributed", "torch._dynamo")
# Other mappings keep what they hold in attributes; or it lies in a file, which is data.
_CONTAINERS = (list, dict, set, deque, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_PLAIN_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict, defaultdict})
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


class Snapshot:
    """What was in some objects, and everything reachable from them, at one moment.

    Args:
        objects: modules, optimizers, scalers, schedulers, tensors, generators, or containers of these; None is skipped.
        data: loaders and data sets: walked too, but the tensors and arrays in them are not copied, except for rows of
            whole numbers (at most 16 MiB each, 64 MiB together): orders in which samples are taken.

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
        self._restorers: list[restorers.Restorer] = []
        # Holding the objects keeps their ids from being reused while the snapshot lives.
        self._seen: dict[int, object] = {}
        self._samplers: set[int] = set()
        self._bytes_left = _LARGEST_ORDERS
        self._pending: deque[tuple[object, bool]] = deque((item, False) for item in data)
        self._pending.extend((item, True) for item in objects)
        # What a function counts on itself; those that others lead to are shared with the rest of the program.
        self._pending.extend((vars(item), True) for item in objects if isinstance(item, types.FunctionType))
        while self._pending:
            self._visit(*self._pending.popleft())
        self._restorers.append(restorers.of_global_generators())

    def restore(self) -> None:
        """Put everything back; may be called any number of times.

        What cannot be put back is no reason to leave the rest: its exception is raised when all else is done.
        """
        failure: Exception | None = None
        with torch.no_grad():
            for restore in self._restorers:
                try:
                    restore()
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def generators(self) -> list[Any]:
        """Return the random number generators that were found, in the order of the walk; the global ones are not."""
        kinds = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
        found = [item for item in self._seen.values() if isinstance(item, kinds)]
        return [item for item in found if not isinstance(item, random.SystemRandom)]

    def _visit(self, item: object, copies_tensors: bool) -> None:
        # A proxy answers for what it stands for, which may be gone.
        if type(item) in weakref.ProxyTypes or isinstance(item, _NOT_WALKED) or id(item) in self._seen:
            return
        self._seen[id(item)] = item
        if not copies_tensors and restorers.may_be_order(item) and item.nbytes <= self._bytes_left:
            self._bytes_left -= item.nbytes
            self._restorers.append(restorers.of_order(item))
        elif isinstance(item, Tensor):
            if copies_tensors:
                self._restorers.append(restorers.of_tensor(item))
                if item.is_leaf and item.requires_grad:
                    self._restorers.append(restorers.of_hooks(item))
                self._visit(vars(item), copies_tensors)
        elif isinstance(item, (np.ndarray, array, bytearray)):
            if copies_tensors:
                self._restorers.append(restorers.of_array(item))
            if isinstance(item, np.ndarray) and item.dtype.hasobject and self._may_walk(item.size, copies_tensors):
                self._walk(item.ravel().tolist(), copies_tensors)
        elif (restorer := restorers.of_generator(item)) is not None:
            self._restorers.append(restorer)
        elif isinstance(item, _CONTAINERS):
            if self._may_walk(len(item), copies_tensors):
                self._restorers.append(restorers.of_container(item))
                self._walk(item if isinstance(item, (list, set, deque)) else item.values(), copies_tensors)
            elif isinstance(item, list) and len(item) <= _LARGEST_LIST:  # somebody may shuffle it
                self._restorers.append(restorers.of_container(item))
            if type(item) not in _PLAIN_CONTAINERS and not _is_machinery(item):
                self._visit_attributes(item, copies_tensors)
        elif isinstance(item, (tuple, frozenset)):
            self._walk(item, copies_tensors)
        elif isinstance(item, types.MappingProxyType):
            self._walk(item.values(), copies_tensors)
        elif isinstance(item, (types.MethodType, types.BuiltinFunctionType, functools.partial)):
            self._walk(_bound(item), copies_tensors)
        elif isinstance(item, nn.Module) and _is_from(_WRAPPERS, item):
            self._restorers.append(restorers.of_attribute(item, "training"))
            self._walk((item._parameters, item._buffers, item._modules), copies_tensors)
        elif isinstance(item, torch.jit.ScriptModule):
            # Its mode and its tensors live outside of Python.
            for module in item.modules():
                if hasattr(module, "training"):  # a frozen one has no mode
                    self._restorers.append(restorers.of_attribute(module, "training"))
            self._walk((*item.parameters(), *item.buffers()), copies_tensors)
        elif not _is_machinery(item) and not _is_running_iterator(item):
            if isinstance(item, DataLoader):
                # Their tensors and long lists are state; torch's have none but their generator's. The data set, which
                # they may lead to, is met before them.
                samplers = (item.sampler, item.batch_sampler)
                self._samplers |= {id(s) for s in samplers if not _is_from(("torch",), s)}
            copies_tensors = (copies_tensors or id(item) in self._samplers) and not isinstance(item, Dataset)
            self._visit_attributes(item, copies_tensors)

    def _visit_attributes(self, item: object, copies_tensors: bool) -> None:
        attributes = getattr(item, "__dict__", None)
        if isinstance(attributes, dict):
            self._visit(attributes, copies_tensors)
        if slots := restorers.slots_of(item):
            self._restorers.append(restorers.of_slots(item, slots))
            self._walk((value for _, value in slots), copies_tensors)

    @staticmethod
    def _may_walk(size: int, copies_tensors: bool) -> bool:
        return copies_tensors or size <= _LARGEST_DATASET_CONTAINER

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
        self._has_grad = torch.is_grad_enabled()
        return self._snapshot

    def __exit__(self, *exception: object) -> None:
        try:
            with deferred_interrupts():
                self._give_back()
        except KeyboardInterrupt:
            # It may have come just before the shield was up; restoring twice does no harm.
            with deferred_interrupts():
                self._give_back()
            raise

    def _give_back(self) -> None:
        try:
            self._snapshot.restore()
        finally:
            # An interrupt at the end of a no_grad block, before its last line, leaves gradients off for good.
            torch.set_grad_enabled(self._has_grad)


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


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a random number generator of one's own, of torch, NumPy or Python, with `seed`.

    >>> generator = torch.Generator()
    >>> seed_generator(generator, 3)
    >>> generator.initial_seed()
    3
    """
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif (bits := restorers.bits_of(generator)) is not None:
        bits.state = type(bits)(seed).state
    else:
        generator.seed(seed % 2**32 if isinstance(generator, np.random.RandomState) else seed)


def _bound(function: Any) -> tuple[object, ...]:
    """Return what a bound method or a partial carries along."""
    if isinstance(function, functools.partial):
        return (function.func, function.args, function.keywords)
    return (function.__self__,)


def _is_machinery(item: object) -> bool:
    return _is_from(_MACHINERY, item)


def _is_from(packages: Sequence[str], item: object) -> bool:
    module = str(type(item).__module__)
    return module in packages or module.startswith(tuple(f"{package}." for package in packages))


def _is_running_iterator(item: object) -> bool:
    # Loader iterators, generators, files: their position cannot be given back by setting fields, but that of a data
    # set that is its own iterator can.
    return hasattr(item, "__next__") and not isinstance(item, Dataset)
