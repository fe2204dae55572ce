"""Loaders: what can be iterated again and again, and its batches for ever."""

import dis
import itertools
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.state import preserve

# Whether a data set gives one and the same iterator each time.
_KNOWN: MutableMapping[Any, bool] = WeakKeyDictionary()
# These never end: what a test takes from them is missed by nobody.
_ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)


class Batches:
    """The batches of a loader, for ever: when the loader ends it is started again.

    Args:
        loader: any iterable that can be iterated more than once: a DataLoader, a list, a loader without length.
        name: the argument's name in messages.

    Attributes:
        num_passes: how often the loader has been started.

    Raises:
        ArgumentTypeError: the loader cannot be iterated, or only once (a generator, an iterator).
        ArgumentError: the loader is empty.

    Example:
        >>> batches = Batches([1, 2, 3])
        >>> batches.take(2), batches.take(2)
        ([1, 2], [3, 1])
    """

    def __init__(self, loader: Any, *, name: str = "train_loader") -> None:
        check_loader(loader, name=name)
        self.num_passes = 0
        self._loader = loader
        self._name = name
        self._iterator: Iterator[Any] = iter(())

    def take(self, num_batches: int) -> list[Any]:
        """Return the next batches, starting the loader again where it ends."""
        return [self._next() for _ in range(num_batches)]

    def one_pass(self) -> Iterator[Any]:
        """Return an iterator over one pass of the loader, from its beginning."""
        self.num_passes += 1
        for loader in (self._loader, *getattr(self._loader, "__dict__", {}).values()):
            if isinstance(loader, DataLoader) and loader._iterator is not None:
                # With persistent workers it has one iterator for ever, which may be half-way through somebody's epoch.
                loader._iterator = None
        is_empty = True
        for batch in self._loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ArgumentError(
                f"{self._name} must yield at least one batch, got an empty one; "
                "check the size of the data set, and drop_last with a batch larger than it"
            )

    def _next(self) -> Any:
        for batch in self._iterator:
            return batch
        self._iterator = self.one_pass()
        return next(self._iterator)


def check_loader(loader: Any, *, name: str) -> None:
    """Raise :class:`ArgumentTypeError` unless `loader` can be iterated again and again."""
    if isinstance(loader, (Tensor, str)) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise ArgumentTypeError(
            f"{name} must be an iterable of batches, got {describe(loader)}; "
            "pass a torch.utils.data.DataLoader or a list of batches"
        )
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise ArgumentTypeError(
            f"{name} must be batches, got a {type(loader).__name__} of samples; pass DataLoader(dataset, batch_size=64)"
        )
    if hasattr(loader, "__next__"):
        raise ArgumentTypeError(
            f"{name} must be iterable more than once, got the one-shot iterator {type(loader).__name__}, "
            "whose batches would be lost; pass the loader itself, with an __iter__ that makes a new iterator, or "
            "list(...) of a few batches"
        )
    if isinstance(loader, DataLoader):
        for part in ("batch_sampler", "sampler"):
            if _is_pythons_iterator(given := getattr(loader, part)):
                raise ArgumentTypeError(
                    f"{name} must be iterable more than once, got a DataLoader whose {part} is the one-shot iterator "
                    f"{type(given).__name__}; pass {part}=list(...), or a torch.utils.data.Sampler"
                )
    # Only one that holds an iterator is asked: another's __iter__ may shuffle in place or start workers.
    elif not isinstance(loader, IterableDataset) and _iterators(loader) and _gives_the_same(loader):
        raise ArgumentTypeError(
            f"{name} must be iterable more than once, got a {type(loader).__name__} that gives the same iterator each "
            "time, whose batches would be lost; have its __iter__ make a new one"
        )
    dataset = getattr(loader, "dataset", loader)
    # One that asks which worker it is in cannot be asked here.
    if isinstance(dataset, IterableDataset) and not getattr(loader, "num_workers", 0) and _is_one_shot(dataset):
        raise ArgumentTypeError(
            f"{name} must be iterable more than once, got a {type(dataset).__name__} that gives the same iterator each "
            "time, whose samples would be lost; have its __iter__ make a new one"
        )
    # Workers have copies of their own.
    for source in (loader, *([] if getattr(loader, "num_workers", 0) else [dataset])):
        if name_of_iterator := _used_up_by_iterating(source):
            raise ArgumentTypeError(
                f"{name} must be iterable more than once, got a {type(source).__name__} whose __iter__ uses up the "
                f"one-shot iterator that it keeps as {name_of_iterator}; have its __iter__ make a new one"
            )


def _is_pythons_iterator(value: Any) -> bool:
    return hasattr(value, "__next__") and type(value).__module__ in ("builtins", "itertools")


def _iterators(loader: Any) -> list[str]:
    """Return the names of the attributes that are iterators of Python's own."""
    return [name for name, value in getattr(loader, "__dict__", {}).items() if _is_pythons_iterator(value)]


def _used_up_by_iterating(source: Any) -> str | None:
    """Return the name of an iterator that ``__iter__`` takes from and does not make; None where there is none.

    Its code alone is looked at: asked for a batch, it would have lost one.
    """
    code = getattr(type(source).__iter__, "__code__", None) if hasattr(type(source), "__iter__") else None
    kept = [name for name in _iterators(source) if not isinstance(vars(source)[name], _ENDLESS)]
    if code is None or not kept:
        return None
    uses = {(instruction.opname, instruction.argval) for instruction in dis.get_instructions(code)}
    return next((name for name in kept if ("LOAD_ATTR", name) in uses and ("STORE_ATTR", name) not in uses), None)


def _is_one_shot(dataset: Any) -> bool:
    # Its __iter__ may take long, and the doors are many.
    try:
        known = _KNOWN.get(dataset)
    except TypeError:  # it has no hash, as a dataclass has none
        return _gives_the_same(dataset)
    if known is None:
        known = _KNOWN[dataset] = _gives_the_same(dataset)
    return known


def _gives_the_same(dataset: Any) -> bool:
    # One that is its own iterator begins anew whenever it is asked, and so may any class of somebody's own; Python's
    # own iterators cannot.
    if hasattr(dataset, "__next__"):
        return False
    with preserve(data=(dataset,)), suppress(Exception):
        first = iter(dataset)
        return type(first).__module__ in ("builtins", "itertools") and first is iter(dataset)
    return False
