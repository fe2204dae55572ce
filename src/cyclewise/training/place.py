"""Where a run is: its position in the loader and all random number generators, to go on with the same bits."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from cyclewise.errors import ArgumentError, CheckpointError
from cyclewise.loaders import check_loader
from cyclewise.state import Snapshot
from cyclewise.training.data import ArrayLoader
from cyclewise.training.generators import (
    generator_state,
    global_rng,
    plain,
    set_generator_state,
    set_global_rng,
    unplain,
)
from cyclewise.training.nested import has_state, loaders_in, nested_states, set_nested_states
from cyclewise.training.samplers import counters_of, sampler_state, samplers_of, set_counters, set_sampler_state


class Place:
    """The position of a run in its loader.

    How a pass is taken up again in the middle depends on the loader: one with ``state_dict`` and ``load_state_dict``
    does it itself; one over a map-style data set, or of somebody's own with a length, is started again with the states
    that its generators, counters and the loaders within it had at the pass's beginning, and read up to the same batch;
    any other goes on with its next pass.

    Args:
        loader: any iterable that can be iterated more than once.
        also: another loader whose generators belong to the run, such as the one for validation.

    Attributes:
        loader: as given.
        num_passes: passes begun.
        num_batches: batches of this pass that have been trained on; whoever trains counts it up.
        is_within: whether a pass has begun and not ended; whoever trains ends it with :meth:`end_pass`.
        is_exhausted: whether the loader was asked for more batches than this pass has, which may have drawn random
            numbers; whoever trains says so.
        generators: the random number generators in the loaders.

    Example:
        >>> place = Place([10, 20, 30])
        >>> batches = place.one_pass()
        >>> next(batches), next(batches)
        (10, 20)
        >>> place.num_batches = 2
        >>> later = Place([10, 20, 30])
        >>> later.load_state_dict(place.state_dict())
        >>> list(later.one_pass())
        [30]
    """

    def __init__(self, loader: Any, also: Any = None) -> None:
        check_loader(loader, name="train_loader")
        self.loader = loader
        self.num_passes = 0
        self.num_batches = 0
        self.is_within = False
        self.is_exhausted = False
        self.generators = Snapshot(data=(loader, also)).generators()
        self._samplers = samplers_of(loader)
        self._nested = loaders_in(loader)
        self._at_start: dict[str, Any] = {}
        self._loaded: Mapping[str, Any] | None = None
        self._also = also

    @property
    def can_resume_within(self) -> bool:
        """Whether a pass can be taken up in the middle."""
        return has_state(self.loader) or _is_map_style(self.loader)

    @property
    def can_go_back(self) -> bool:
        """Whether :meth:`go_to` and the generators are all that it takes to be where the run was."""
        return all(map(_moves_by_generators_alone, (self.loader, self._also)))

    def position(self) -> tuple[Any, ...]:
        """Return where the run is among its passes and batches, at little cost; :meth:`go_to` goes back there."""
        loader = self.loader
        counts = (loader.num_passes, loader.num_batches) if isinstance(loader, ArrayLoader) else None
        return self.num_passes, self.num_batches, self.is_within, self.is_exhausted, self._at_start, counts

    def go_to(self, position: tuple[Any, ...]) -> None:
        """Take up what :meth:`position` returned, for a :meth:`state_dict` of there; no batch is read again."""
        self.num_passes, self.num_batches, self.is_within, self.is_exhausted, self._at_start, counts = position
        if counts is not None:
            self.loader.num_passes, self.loader.num_batches = counts

    def one_pass(self) -> Iterator[Any]:
        """Return the batches of a pass: the rest of the one that was loaded, else a new one.

        Raises:
            ArgumentError: the loader is empty.
        """
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return self._new_pass()
        self._set(loaded["now"])
        if not loaded["is_within"] or not self.can_resume_within:
            self._set_nested(loaded["now"])
            return self._new_pass()
        if has_state(self.loader):
            self.loader.load_state_dict(unplain(loaded["loader"]))
            # One that has come to its end begins anew; not ours, which yields the nothing that is left.
            is_over = self.is_exhausted and not isinstance(self.loader, ArrayLoader)
            rest: Iterator[Any] = iter(() if is_over else self.loader)
            self._set(loaded["now"])
            return rest
        self._set(loaded["at_start"])
        self._set_nested(loaded["at_start"])
        _set_epoch(self.loader, self.num_passes - 1)
        iterator: Iterator[Any] = iter(self.loader)
        for _ in range(loaded["num_batches"]):
            next(iterator)
        if self.is_exhausted:
            next(iterator, None)
        self._set(loaded["now"])
        return iterator

    def state_dict(self) -> dict[str, Any]:
        """Return the position, with the states of all generators at the beginning of the pass and now."""
        loader: Any = plain(self.loader.state_dict()) if has_state(self.loader) else None
        if self._loaded is not None:
            loader = self._loaded["loader"]  # which it gets when the pass is taken up
        elif isinstance(self.loader, ArrayLoader) and self.is_within:
            loader["num_batches"] = self.num_batches  # not one that was handed out and not yet trained on
            # Nor the pass of somebody who has read from it since, such as a callback.
            loader["pass"] = self._at_start.get("pass", loader["num_passes"])
        return {
            "data": _data_in(self.loader),
            "contents": [_contents(loader) for loader in (self.loader, self._also)],
            "num_passes": self.num_passes,
            "num_batches": self.num_batches,
            "is_within": self.is_within,
            "is_exhausted": self.is_exhausted,
            "loader": loader,
            "at_start": self._at_start,
            "now": self._states(),
        }

    def end_pass(self) -> None:
        """Note that the pass is over, with all that belongs to it."""
        self.is_within = False

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass go on from a saved position.

        Raises:
            CheckpointError: it is one in other data.
        """
        own = _data_in(self.loader)
        if state["data"] != own:
            raise CheckpointError(
                f"train_loader must be the one of the saved run, a {state['data']}, got a {own}; pass the same data, "
                "or take weights and optimizer alone with learn.load(directory)"
            )
        # Runs that were saved before there were fingerprints have none.
        contents = zip(
            ("train_loader", "valid_loader"), (self.loader, self._also), state.get("contents", ()), strict=False
        )
        for name, loader, saved in contents:
            if None not in (saved, _contents(loader)) and saved != _contents(loader):
                raise CheckpointError(
                    f"{name} must hold the data of the saved run, got arrays with other values, types or shapes; "
                    "pass the same data, or take weights and optimizer alone with learn.load(directory)"
                )
        self.num_passes, self.num_batches = state["num_passes"], state["num_batches"]
        self.is_within, self.is_exhausted = state["is_within"], state.get("is_exhausted", False)
        self._at_start = state["at_start"]
        self._loaded = state
        self._set(state["now"])
        if not self.is_within:
            self._set_nested(state["now"])
        if isinstance(self.loader, ArrayLoader):
            self.loader.load_state_dict(state["loader"], is_within=self.is_within)
        elif has_state(self.loader) and not self.is_within and state["loader"] is not None:
            # Between passes too: it may count them itself.
            self.loader.load_state_dict(unplain(state["loader"]))

    def _new_pass(self) -> Iterator[Any]:
        self.num_passes += 1
        self.num_batches = 0
        self.is_within, self.is_exhausted = True, False
        if isinstance(self.loader, ArrayLoader):
            self._at_start = {"pass": self.loader.num_passes + 1}
        else:
            self._at_start = {} if has_state(self.loader) else self._states()
        _set_epoch(self.loader, self.num_passes - 1)
        is_empty = True
        for batch in self.loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ArgumentError(
                "train_loader must yield at least one batch, got an empty one; "
                "check the size of the data set, and drop_last with a batch larger than it"
            )

    def _states(self) -> dict[str, Any]:
        return {
            "global": global_rng(),
            "loader": [generator_state(generator) for generator in self.generators],
            "samplers": [sampler_state(sampler) for sampler in self._samplers],
            "counters": counters_of(self.loader),
            "nested": nested_states(self._nested),
        }

    def _set(self, states: Mapping[str, Any]) -> None:
        found = [_kind(generator_state(generator)) for generator in self.generators]
        saved = [_kind(state) for state in states["loader"]]
        if found != saved:
            raise CheckpointError(
                f"train_loader must hold the random number generators of the saved run, {_listed(saved)}, got "
                f"{_listed(found)}; pass the same data, or take weights and optimizer alone with learn.load(directory)"
            )
        set_global_rng(states["global"])
        for generator, state in zip(self.generators, states["loader"], strict=True):
            set_generator_state(generator, state)
        # Runs of before there were any have none.
        for sampler, state in zip(self._samplers, states.get("samplers", ()), strict=False):
            set_sampler_state(sampler, state)
        set_counters(self.loader, states.get("counters", {}))

    def _set_nested(self, states: Mapping[str, Any]) -> None:
        # Apart from the rest: read up to a batch of a pass, they are in its middle, and are not to begin there again.
        set_nested_states(self._nested, states.get("nested", ()))


def _is_map_style(loader: Any) -> bool:
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return hasattr(loader, "__len__")


def _moves_by_generators_alone(loader: Any) -> bool:
    if isinstance(loader, (ArrayLoader, list, tuple, type(None))):
        return True
    # What else moves in a loader or sampler of somebody's own, only that knows.
    is_known = isinstance(loader, DataLoader) and _is_map_style(loader) and not has_state(loader)
    return is_known and not samplers_of(loader)


def _data_in(loader: Any) -> str:
    """Return what can be told of the data without reading it, as text."""
    parts = [type(loader).__name__]
    if isinstance(loader, ArrayLoader):
        parts.append(str(loader))
    elif isinstance(loader, DataLoader):
        # Not the number of batches, which some samplers change from pass to pass.
        if hasattr(loader.dataset, "__len__"):
            parts.append(f"{len(loader.dataset)} samples")
        if loader.batch_size is not None:
            parts.append(f"batches of {loader.batch_size}")
    elif isinstance(loader, (list, tuple)):
        parts.append(f"{len(loader)} batches")
    return ", ".join(parts)


def _contents(loader: Any) -> str | None:
    return loader.fingerprint() if isinstance(loader, ArrayLoader) else None


def _set_epoch(loader: Any, epoch: int) -> None:
    # What torch's DistributedSampler, and loaders made after it, need to shuffle anew in every pass.
    for item in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        set_epoch = getattr(item, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def _kind(state: Any) -> str:
    return "torch's" if isinstance(state, torch.Tensor) else "NumPy's" if isinstance(state, Mapping) else "Python's"


def _listed(kinds: list[str]) -> str:
    return f"{len(kinds)} ({', '.join(kinds)})" if kinds else "none"
