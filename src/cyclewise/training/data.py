"""Training and validation batches, and a loader for arrays that indexes whole batches at once."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclewise._validation import describe, fraction, random_seed, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.fingerprint import fingerprint
from cyclewise.loaders import check_loader

# Gathering many small batches at once saves their overhead; few enough to stay in a processor's cache. An accelerator
# has no use for the cache, and every gathering costs it a launch.
_BYTES_AT_ONCE, _BYTES_AT_ONCE_ON_DEVICE = 2**21, 2**26
_MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Data:
    """The batches to train on, and those to judge by.

    Several Learners may share one: of arrays, each takes its batches in the order of the first pass on.

    Args:
        train_loader: batches ``(inputs, targets)`` or dicts; any iterable that can be iterated more than once.
        valid_loader: held-out batches; None for no validation.

    Raises:
        ArgumentTypeError: a loader cannot be iterated, or only once.

    Example:
        >>> data = Data([(torch.ones(2, 3), torch.zeros(2))])
        >>> data.steps_per_epoch, data.valid_loader
        (1, None)
    """

    train_loader: Any
    valid_loader: Any = None

    def __post_init__(self) -> None:
        check_loader(self.train_loader, name="train_loader")
        if self.valid_loader is not None:
            check_loader(self.valid_loader, name="valid_loader")

    @classmethod
    def from_arrays(
        cls, inputs: Any, targets: Any, *, valid_fraction: float = 0.2, batch_size: int = 64, seed: int = 0
    ) -> "Data":
        """Split arrays into training and validation batches.

        Args:
            inputs: tensor or array, or a tuple or dict of them, first dimension N; NumPy's float64 becomes torch's
                default type, tensors keep theirs.
            targets: tensor or array, or a tuple or dict of them, first dimension N; likewise. The loss function gets
                them as they are here.
            valid_fraction: fraction of the N samples set aside for validation, drawn at random; 0.0: none.
            batch_size: samples per batch; the last batch of an epoch may be smaller.
            seed: draws the split and the order of each epoch.

        Raises:
            ArgumentError: lengths differ, the arrays are empty or sparse, or the split leaves nothing to train on.
            ArgumentTypeError: an array holds no numbers.

        Example:
            >>> data = Data.from_arrays(torch.randn(100, 4), torch.zeros(100), batch_size=30)
            >>> [len(targets) for _, targets in data.train_loader], len(data.valid_loader)
            ([30, 30, 20], 1)
        """
        held_out = fraction("valid_fraction", valid_fraction)
        size = whole("batch_size", batch_size, minimum=1, way_out="64 is a good start")
        seed = random_seed("seed", seed)
        inputs, targets = _tensors("inputs", inputs), _tensors("targets", targets)
        num_samples = _length("targets", targets)
        if _length("inputs", inputs) != num_samples:
            raise ArgumentError(
                f"inputs must have as many samples as targets, got {_length('inputs', inputs)} and {num_samples}; "
                "the first dimension counts the samples"
            )
        num_valid = round(held_out * num_samples)
        if num_samples - num_valid < 1:
            raise ArgumentError(
                f"valid_fraction must leave at least one sample to train on, got {valid_fraction!r} of {num_samples}; "
                "pass a smaller fraction"
            )
        order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
        valid, train = order[:num_valid], order[num_valid:]
        return cls(
            ArrayLoader(_pick(inputs, train), _pick(targets, train), batch_size=size, seed=seed),
            ArrayLoader(_pick(inputs, valid), _pick(targets, valid), batch_size=size, seed=None) if num_valid else None,
        )

    @staticmethod
    def batches_of(inputs: Any, *, batch_size: int = 256) -> "ArrayLoader":
        """Return the batches of inputs alone, in their order, with their numbers in place of targets.

        Example:
            >>> [targets.tolist() for _, targets in Data.batches_of(torch.zeros(3, 2), batch_size=2)]
            [[0, 1], [2]]
        """
        tensors = _tensors("inputs", inputs)
        return ArrayLoader(tensors, torch.arange(_length("inputs", tensors)), batch_size=batch_size, seed=None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per pass over the training data.

        Raises:
            ArgumentError: the training loader has no length, or is empty.
        """
        try:
            length = len(self.train_loader)
        except TypeError:
            raise ArgumentError(
                f"train_loader must have a length where epochs are counted, got a {type(self.train_loader).__name__} "
                "without one; give it a __len__, or train for a number of steps with fit(policy)"
            ) from None
        if length < 1:
            raise ArgumentError(
                "train_loader must yield at least one batch, got a length of 0; "
                "check the size of the data set, and drop_last with a batch larger than it"
            )
        return length


class ArrayLoader:
    """Batches of arrays by indexing: no per-sample collation, no worker processes.

    The order of a pass is a function of the seed and the number of the pass alone, so a run can be repeated from any
    batch. Several batches are gathered at a time, and handed out as views of what was gathered.

    Args:
        inputs: tensor, or tuple or dict of tensors, first dimension N.
        targets: likewise, the same N.
        batch_size: samples per batch.
        seed: seeds the order of the passes; None keeps the order of the arrays.

    Attributes:
        num_passes: passes begun so far.
        num_batches: batches handed out in the present pass.

    Example:
        >>> loader = ArrayLoader(torch.arange(4), torch.arange(4), batch_size=3, seed=None)
        >>> [inputs.tolist() for inputs, _ in loader]
        [[0, 1, 2], [3]]
    """

    def __init__(self, inputs: Any, targets: Any, *, batch_size: int, seed: int | None) -> None:
        self.batch_size = batch_size
        self.num_passes = 0
        self.num_batches = 0
        self._arrays = (inputs, targets)
        first = _first(targets)
        self._num_samples = len(first)
        self._device = first.device
        self._seed = seed
        self._rank, self._num_ranks, self._is_even = 0, 1, True
        self._resume_at: tuple[int, int] | None = None
        # Shared by all views of the arrays, whichever is asked first.
        self._fingerprint: list[str] = []

    def __len__(self) -> int:
        rounds, rest = divmod(self._num_samples, self.batch_size * self._num_ranks)
        return rounds + (rest > self._rank * self._share(rest) or (rest > 0 and self._is_even))

    def __str__(self) -> str:
        return f"{self._num_samples} samples, batches of {self.batch_size}, seed {self._seed}"

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        resume_at, self._resume_at = self._resume_at, None
        if resume_at is None:
            self.num_passes += 1
            resume_at = self.num_passes, 0
        number, self.num_batches = resume_at
        return self._batches(number, self.num_batches)

    def _batches(self, number: int, first: int) -> Iterator[tuple[Any, Any]]:
        # Where the arrays are, once a pass: each copy to an accelerator would make the loop wait for it.
        order = self._own_order(number).to(self._device)
        batches_at_once = self._batches_at_once()
        for begin in range(first * self.batch_size, len(order), batches_at_once * self.batch_size):
            indices = order[begin : begin + batches_at_once * self.batch_size]
            for batch in zip(*(_in_batches(_pick(array, indices), self.batch_size) for array in self._arrays),
                             strict=True):  # fmt: skip
                self.num_batches += 1
                yield batch

    def view(self) -> "ArrayLoader":
        """Return a loader of the same arrays that counts its own passes, from the first.

        >>> loader = ArrayLoader(torch.arange(4), torch.arange(4), batch_size=4, seed=0)
        >>> first, second = ([inputs.tolist() for inputs, _ in loader] for _ in range(2))
        >>> first == second, first == [inputs.tolist() for inputs, _ in loader.view()]
        (False, True)
        """
        loader = copy.copy(self)
        loader.num_passes = loader.num_batches = 0
        loader._resume_at = None
        return loader

    def shard(self, rank: int, num_ranks: int, *, is_even: bool) -> "ArrayLoader":
        """Return the loader of one of several ranks, which share each round of ``num_ranks * batch_size`` samples.

        Args:
            rank: which share.
            num_ranks: number of shares.
            is_even: fill a last round that cannot be shared evenly up with samples from the beginning.
        """
        loader = self.view()
        loader._rank, loader._num_ranks, loader._is_even = rank, num_ranks, is_even
        return loader

    def fingerprint(self) -> str:
        """Return the checksum of the arrays; they are this loader's own, so it is computed once."""
        if not self._fingerprint:
            self._fingerprint.append(fingerprint(self._arrays))
        return self._fingerprint[0]

    def state_dict(self) -> dict[str, int]:
        """Return the passes begun and the batches handed out in the last of them."""
        return {"num_passes": self.num_passes, "num_batches": self.num_batches}

    def load_state_dict(self, state: Mapping[str, int], *, is_within: bool = True) -> None:
        """Have the next iteration go on within the pass that was saved, or begin the one after it.

        Args:
            state: what :meth:`state_dict` returned; with the number of a "pass", it goes on within that one, though
                others have begun since.
            is_within: whether it goes on within a pass.
        """
        self.num_passes, self.num_batches = state["num_passes"], state["num_batches"]
        self._resume_at = (state.get("pass", self.num_passes), self.num_batches) if is_within else None

    def _share(self, num_samples: int) -> int:
        return min(self.batch_size, -(-num_samples // self._num_ranks))

    def _batches_at_once(self) -> int:
        bytes_per_batch = self.batch_size * max(1, _bytes(self._arrays) // self._num_samples)
        budget = _BYTES_AT_ONCE if self._device.type == "cpu" else _BYTES_AT_ONCE_ON_DEVICE
        return max(1, min(_MOST_AT_ONCE, budget // bytes_per_batch))

    def _own_order(self, number: int) -> Tensor:
        order = self._order(number)
        if self._num_ranks == 1:
            return order
        size = self.batch_size * self._num_ranks
        whole_rounds = len(order) // size * size
        own = order[:whole_rounds].reshape(-1, self._num_ranks, self.batch_size)[:, self._rank].reshape(-1)
        rest = order[whole_rounds:]
        share = self._share(len(rest))
        if self._is_even and share:
            rest = torch.cat([rest, order.repeat(-(-size // len(order)))])[: share * self._num_ranks]
        return torch.cat([own, rest[self._rank * share : (self._rank + 1) * share]])

    def _order(self, number: int) -> Tensor:
        if self._seed is None:
            return torch.arange(self._num_samples)
        # One generator per pass: SeedSequence mixes the two numbers so that neighbours are unrelated.
        words = np.random.SeedSequence((self._seed, number - 1)).generate_state(2)
        mixed = (int(words[0]) << 31) ^ int(words[1])
        return torch.randperm(self._num_samples, generator=torch.Generator().manual_seed(mixed))


def _tensors(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tensors(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_tensors(f"{name}[{i}]", item) for i, item in enumerate(value))
    try:
        tensor = as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else describe(value)
        raise ArgumentTypeError(f"{name} must be an array of numbers, got {got}; encode it as numbers first") from error
    if tensor.layout != torch.strided:
        raise ArgumentError(
            f"{name} must be dense, got a tensor of layout {tensor.layout}; pass {name}.to_dense(), or batches that "
            "your own loader makes dense"
        )
    return tensor


def as_tensor(value: Any) -> Tensor:
    """Return a tensor as it is but without its graph, and all else that holds numbers as a tensor.

    NumPy makes double precision of everything, so that it says nothing about what is wanted: as in
    ``torch.tensor([1.5])`` it becomes torch's default type, single precision unless that was changed. A tensor keeps
    its type.

    >>> as_tensor(np.array([1.5])), as_tensor([1.5]), as_tensor(np.array([2, 1], dtype=">u2")[::-1])
    (tensor([1.5000]), tensor([1.5000]), tensor([1, 2]))
    """
    if isinstance(value, Tensor):
        return value.detach()
    if not hasattr(value, "__array__") and not (isinstance(value, list) and value and hasattr(value[0], "__array__")):
        return torch.as_tensor(value)
    array = np.asarray(value)
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)  # torch can hold the wider unsigned types, and do little with them
    # Neither another byte order nor negative strides nor memory that must not be written to is for torch.
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    return torch.from_numpy(array).to(torch.get_default_dtype() if array.dtype == np.float64 else None)


def _length(name: str, value: Any) -> int:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple):
        lengths = {_length(name, item) for item in value}
        if len(lengths) != 1:
            raise ArgumentError(
                f"{name} must all have the same number of samples, got {sorted(lengths)}; "
                "the first dimension counts the samples"
            )
        return lengths.pop()
    if value.ndim == 0 or len(value) == 0:
        raise ArgumentError(
            f"{name} must hold at least one sample, got shape {tuple(value.shape)}; "
            "the first dimension counts the samples"
        )
    return len(value)


def _first(value: Any) -> Tensor:
    while isinstance(value, (dict, tuple)):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    assert isinstance(value, Tensor)
    return value


def _pick(value: Any, indices: Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _pick(item, indices) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_pick(item, indices) for item in value)
    return value.index_select(0, indices.to(value.device))


def _in_batches(value: Any, batch_size: int) -> Iterator[Any]:
    if isinstance(value, dict):
        parts = zip(*(_in_batches(item, batch_size) for item in value.values()), strict=True)
        return (dict(zip(value, part, strict=True)) for part in parts)
    if isinstance(value, tuple):
        return zip(*(_in_batches(item, batch_size) for item in value), strict=True)
    return iter(torch.split(value, batch_size))


def _bytes(value: Any) -> int:
    if isinstance(value, (dict, tuple)):
        return sum(_bytes(item) for item in (value.values() if isinstance(value, dict) else value))
    return int(value.nbytes)
