"""What gives one thing back: each function remembers what is in it now, and returns what puts that back."""

import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cyclewise.errors import ArgumentError

Restorer = Callable[[], None]
_UNSET = object()
# What gives the parts of a sparse tensor as they are, in the order in which one is made of them.
_BY_ROWS, _BY_COLUMNS = ("crow_indices", "col_indices", "values"), ("ccol_indices", "row_indices", "values")
_PARTS = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: _BY_ROWS,
    torch.sparse_bsr: _BY_ROWS,
    torch.sparse_csc: _BY_COLUMNS,
    torch.sparse_bsc: _BY_COLUMNS,
}

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# An order in which samples are taken is copied up to so many bytes; a longer row of whole numbers is data (tokens).
_LARGEST_ORDER = 2**24


def of_tensor(tensor: Tensor) -> Restorer:
    """Remember the values of a tensor, where they lie, its gradient and ``requires_grad``."""
    if is_lazy(tensor):
        raise ArgumentError(
            "model must have initialised parameters, got a lazy layer that has not seen a batch; "
            "run one batch through the model first"
        )
    restore_values = _of_values(tensor)
    is_leaf, requires_grad = tensor.is_leaf, tensor.requires_grad
    gradient = tensor.grad if is_leaf else None
    restore_gradient = None if gradient is None else _of_values(gradient)

    def restore() -> None:
        restore_values()
        if not is_leaf:
            return
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        if restore_gradient is not None:
            restore_gradient()
        if tensor.grad is not gradient:
            tensor.grad = gradient

    return restore


def _of_values(tensor: Tensor) -> Restorer:
    """Remember the values of a tensor, and where they lie."""
    storage = tensor.detach()  # the same memory: found again if somebody swaps `tensor.data`
    if tensor.layout in _PARTS:
        return _of_sparse(tensor, storage)
    memory = _writable(storage)
    value = memory.clone()
    # Memory that torch has not allocated (an array's, a file's that is only mapped) may be for reading alone, unless it
    # is trained.
    is_foreign = not tensor.requires_grad and _is_foreign(storage)

    def restore() -> None:
        if not (is_foreign and torch.equal(_bits(memory), _bits(value))):
            memory.copy_(value)
        if not _same_place(tensor, storage):
            tensor.data = storage

    return restore


def _of_sparse(tensor: Tensor, storage: Tensor) -> Restorer:
    """Remember the parts of a sparse tensor: what writes into it may give it others, of another length."""
    parts = _parts(storage)
    values = [part.clone() for part in parts]
    places = _places(storage, parts)
    options: dict[str, Any] = {"size": storage.shape, "check_invariants": False}
    if tensor.layout is torch.sparse_coo:
        make: Callable[..., Tensor] = torch.sparse_coo_tensor
        options["is_coalesced"] = storage.is_coalesced()
    else:
        make, options["layout"] = torch.sparse_compressed_tensor, tensor.layout

    def restore() -> None:
        for part, value in zip(parts, values, strict=True):
            part.copy_(value)
        now = tensor.detach()
        if now.layout is not storage.layout or _places(now, _parts(now)) != places:
            tensor.data = make(*parts, **options)

    return restore


def _parts(tensor: Tensor) -> list[Tensor]:
    return [getattr(tensor, name)() for name in _PARTS[tensor.layout]]


def _places(tensor: Tensor, parts: list[Tensor]) -> list[Any]:
    is_coalesced = tensor.layout is torch.sparse_coo and tensor.is_coalesced()
    return [tensor.shape, is_coalesced, *((part.data_ptr(), part.shape, part.stride()) for part in parts)]


def of_hooks(tensor: Tensor) -> Restorer:
    """Remember the hooks on the gradient of a leaf."""
    found = [(place, getattr(tensor, place, None)) for place in ("_backward_hooks", "_post_accumulate_grad_hooks")]
    contents = [of_container(hooks) for _, hooks in found if hooks is not None]

    def restore() -> None:
        for place, hooks in found:
            now = getattr(tensor, place, None)
            if now is not hooks:
                if now is not None:
                    now.clear()  # torch may hold on to it
                setattr(tensor, place, hooks)
        for refill in contents:
            refill()

    return restore


def _writable(tensor: Tensor) -> Tensor:
    """Return the tensor, or, where elements share their memory as after ``expand``, all of that memory."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return tensor
    if all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        return tensor
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _is_foreign(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        return False
    return not tensor.untyped_storage().resizable()


def _bits(tensor: Tensor) -> Tensor:
    # Zeros have signs, and what is not a number equals nothing.
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.view(_WHOLE[tensor.element_size()])


def _same_place(first: Tensor, second: Tensor) -> bool:
    if first.is_nested or second.is_nested:
        return True
    if first.shape != second.shape:
        return False
    if first.layout is not torch.strided or second.layout is not torch.strided:
        return True
    return first.data_ptr() == second.data_ptr() and first.stride() == second.stride()


def of_array(values: Any) -> Restorer:
    """Remember the values of an array that is no tensor."""
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


def may_be_order(item: object) -> TypeGuard[Tensor | np.ndarray[Any, Any]]:
    """Return whether a tensor or an array may hold the order in which samples are taken: one row of whole numbers.

    >>> [may_be_order(item) for item in (torch.arange(3), torch.zeros(3), np.arange(3), np.zeros((2, 3), int))]
    [True, False, True, False]
    """
    if isinstance(item, Tensor):
        is_row = item.layout is torch.strided and item.ndim == 1 and item.device.type != "meta"
        return is_row and not (item.is_floating_point() or item.is_complex()) and item.nbytes <= _LARGEST_ORDER
    return (
        isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "iub" and item.nbytes <= _LARGEST_ORDER
    )


def of_order(values: Any) -> Restorer:
    """Remember a row of whole numbers; what has not changed is not written to."""
    kept = values.clone() if isinstance(values, Tensor) else values.copy()
    are_equal = torch.equal if isinstance(values, Tensor) else np.array_equal

    def restore() -> None:
        if not are_equal(values, kept):
            values[...] = kept

    return restore


def slots_of(item: object) -> list[tuple[Any, Any]]:
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


def of_slots(item: object, slots: list[tuple[Any, Any]]) -> Restorer:
    """Remember what :func:`slots_of` returned."""

    def restore() -> None:
        for place, value in slots:
            now = _in_slot(place, item)
            if value is _UNSET and now is not _UNSET:
                place.__delete__(item)
            elif now is not value:
                place.__set__(item, value)

    return restore


def of_container(container: Any) -> Restorer:
    """Remember the items of a container and their order."""
    if not isinstance(container, (list, set, deque)):
        items = list(container.items())

        def restore() -> None:
            now = list(container.items())
            if len(now) != len(items) or any(
                a[0] is not b[0] or a[1] is not b[1] for a, b in zip(now, items, strict=True)
            ):
                _refill(container, items)

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


def _refill(container: Any, items: list[tuple[Any, Any]]) -> None:
    # By the class's own methods a Counter would count, and others refuse or log.
    if isinstance(container, OrderedDict):
        OrderedDict.clear(container)
        for key, value in items:
            OrderedDict.__setitem__(container, key, value)
    elif isinstance(container, dict):
        dict.clear(container)
        dict.update(container, items)
    else:
        container.clear()
        for key, value in items:
            container[key] = value


def of_attribute(item: object, name: str) -> Restorer:
    """Remember an attribute that is set as a property."""
    value = getattr(item, name)
    return lambda: setattr(item, name, value)


def of_generator(item: object) -> Restorer | None:
    """Remember the state of a random number generator; None where the item is none."""
    if isinstance(item, torch.Generator):
        state = item.get_state()

        def restore() -> None:
            item.set_state(state)

        return restore
    if (bits := bits_of(item)) is not None:
        bits_state = bits.state
        return lambda: setattr(bits, "state", bits_state)
    if isinstance(item, np.random.RandomState):
        legacy_state = item.get_state()
        return lambda: item.set_state(legacy_state)
    if isinstance(item, random.SystemRandom):
        return lambda: None  # the system's noise has no state
    if isinstance(item, random.Random):
        python_state = item.getstate()
        return lambda: item.setstate(python_state)
    return None


def bits_of(item: object) -> Any:
    """Return what holds the state of one of NumPy's generators: its bit generator, or itself; None for all else."""
    if isinstance(item, np.random.Generator):
        return item.bit_generator
    return item if isinstance(item, np.random.BitGenerator) else None


def of_global_generators() -> Restorer:
    """Remember the global generators of Python, NumPy, torch and CUDA."""
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
