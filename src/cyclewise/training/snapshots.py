"""Snapshots: the model's weights as they were at the end of each cycle, in memory or on disk."""

import copy
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from cyclewise._validation import describe, instance, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError, CheckpointError
from cyclewise.files import write_file
from cyclewise.training.callbacks import Callback

if TYPE_CHECKING:
    from cyclewise.training.learner import Learner

_WAY_OUT = "pass policy.cycle_ends of the policy that is fitted"


class Snapshots(Callback):
    """Keep the model's weights at the end of each cycle of a fit.

    A cycle that is run again, after a resume or in another fit with the same object, replaces its snapshot.

    Args:
        cycle_ends: the step after each cycle, counted within the fit, rising: ``policy.cycle_ends``.
        directory: where to write them, as ``snapshot-001.pt`` for the first cycle and so on; None keeps them in
            memory, on the CPU. A file is written whole or not at all. One that cannot be written (a full disk) is a
            warning, and that snapshot is kept in memory. One fit, one directory: a fit refuses one with snapshots that
            this object has not written, unless a checkpoint of that very fit has been resumed.

    Attributes:
        cycle_ends: as given.
        directory: as given, a path or None.

    Raises:
        ArgumentTypeError: `cycle_ends` is no sequence.
        ArgumentError: `cycle_ends` is empty or does not rise, or `directory` is a file.

    Source: Huang et al., arXiv:1704.00109, section 3.

    Example:
        >>> import cyclewise as cw
        >>> learn = cw.Learner(nn.Linear(1, 2), [(torch.ones(4, 1), torch.ones(4).long())], progress=False)
        >>> policy = cw.SGDR(max_lr=0.1, T_0=5, num_cycles=3)
        >>> snapshots = Snapshots(policy.cycle_ends)
        >>> _ = learn.fit(policy, callbacks=[snapshots])
        >>> len(snapshots.states), torch.equal(snapshots.states[-1]["weight"], learn.model.weight)
        (3, True)
    """

    def __init__(self, cycle_ends: Sequence[int], *, directory: str | os.PathLike[str] | None = None) -> None:
        self.cycle_ends = _checked(cycle_ends)
        self.directory = None if directory is None else Path(directory)
        if self.directory is not None and self.directory.exists() and not self.directory.is_dir():
            raise ArgumentError(
                f"directory must be a folder, got the file {str(directory)!r}; pass another path, it is made if missing"
            )
        self._numbers = {end: number for number, end in enumerate(self.cycle_ends, 1)}
        # By the step after the cycle, so that one that is run again finds the place of its snapshot.
        self._kept: dict[int, dict[str, Any] | Path] = {}
        self._owns_files = False

    @property
    def states(self) -> "SnapshotStates":
        """The snapshots so far, in order; those on disk are read when they are taken out."""
        return SnapshotStates([self._kept[end] for end in sorted(self._kept)])

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Refuse cycles that end after the fit, and the directory of another one.

        Raises:
            ArgumentError: a cycle ends after the last step.
            CheckpointError: the directory holds the snapshots of another fit, whose ensemble would be mixed up.
        """
        if self.cycle_ends[-1] > total_steps:
            raise ArgumentError(
                f"cycle_ends must lie within the {total_steps} steps of the fit, got {self.cycle_ends[-1]}; {_WAY_OUT}"
            )
        if self.directory is not None:
            # Every rank writes, maybe on a disk of its own; all must end where one does.
            is_own = self._owns_files or learner.interrupted is not None
            complaints = learner.runtime.gather(None if is_own else self._other_fit(self.directory))
            if any(complaints):
                raise CheckpointError(next(filter(None, complaints)))

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Keep the weights if a cycle ends with this step."""
        del loss
        if step + 1 in self._numbers:
            self._keep(step + 1, _on_cpu(learner.model))

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, by the step after the cycle: tensors, or the names of files in the directory."""
        kept = {end: item.name if isinstance(item, Path) else item for end, item in self._kept.items()}
        return {"snapshots": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the snapshots of an earlier run.

        Raises:
            CheckpointError: the state is not one of Snapshots, its cycles end elsewhere, or a file is missing.
        """
        kept = state.get("snapshots") if isinstance(state, Mapping) else None
        if not isinstance(kept, Mapping):
            raise CheckpointError(
                f"state must be that of Snapshots, got {describe(state)}; pass the callbacks of the run that was saved"
            )
        foreign = sorted(set(kept) - set(self.cycle_ends))
        if foreign:
            raise CheckpointError(
                f"state must hold snapshots of the cycles that end at {self.cycle_ends}, got some of steps {foreign}; "
                "resume with the policy that was saved"
            )
        self._owns_files = True
        self._kept = {end: self._found(item) if isinstance(item, str) else item for end, item in kept.items()}

    def _keep(self, end: int, state: dict[str, Any]) -> None:
        self._kept[end] = state
        if self.directory is None:
            return
        path = self.directory / f"snapshot-{self._numbers[end]:03d}.pt"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _write_whole(path, state)
        except OSError as error:
            warnings.warn(
                f"the snapshot of step {end} could not be written ({error}) and is kept in memory; "
                "make room in the directory, or pass another one",
                UserWarning,
                stacklevel=2,
            )
        else:
            self._kept[end] = path
            self._owns_files = True

    def _other_fit(self, directory: Path) -> str | None:
        files = sorted(path.name for path in directory.glob("snapshot-*.pt"))
        if not files:
            return None
        return (
            f"directory must hold no snapshots of another fit, got {str(directory)!r} with {len(files)} that this one "
            f"has not written, such as {files[0]}; pass another folder, or delete them if they are not needed"
        )

    def _found(self, name: str) -> Path:
        if self.directory is None:
            raise CheckpointError(
                f"directory must be the one with the snapshots of the saved run, got None for {name}; "
                "pass Snapshots(cycle_ends, directory=...)"
            )
        # A saved state may come from anywhere; only the name within the directory is taken from it.
        path = self.directory / Path(name).name
        if not path.is_file():
            raise CheckpointError(
                f"directory must hold the snapshots of the saved run, got none named {path.name} in "
                f"{str(self.directory)!r}; put the file back, or start the run again"
            )
        return path


def snapshots_in(callbacks: Iterable[Callback]) -> list[Snapshots]:
    """Return those of the callbacks that keep snapshots."""
    return [callback for callback in callbacks if isinstance(callback, Snapshots)]


class SnapshotStates(Sequence[Mapping[str, Any]]):
    """State dicts in a row, each in memory or in a file that is read anew whenever the item is taken.

    Args:
        items: state dicts, or paths of files that :func:`torch.save` wrote.

    Example:
        >>> states = SnapshotStates([{"weight": torch.zeros(1)}, {"weight": torch.ones(1)}])
        >>> len(states), states[-1], len(states[:1])
        (2, {'weight': tensor([1.])}, 1)
    """

    def __init__(self, items: Iterable[Mapping[str, Any] | Path]) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "SnapshotStates": ...
    def __getitem__(self, index: int | slice) -> "Mapping[str, Any] | SnapshotStates":
        if isinstance(index, slice):
            return SnapshotStates(self._items[index])
        item = self._items[index]
        return _read(item) if isinstance(item, Path) else item

    def __repr__(self) -> str:
        num_files = sum(isinstance(item, Path) for item in self._items)
        return f"{type(self).__name__}({len(self)} state dicts, {num_files} of them on disk)"


def _checked(cycle_ends: Any) -> list[int]:
    if not isinstance(cycle_ends, Iterable) or isinstance(cycle_ends, str):
        raise ArgumentTypeError(f"cycle_ends must be a list of steps, got {describe(cycle_ends)}; {_WAY_OUT}")
    ends = [whole("cycle_ends", end, minimum=1, way_out=_WAY_OUT) for end in cycle_ends]
    if not ends or any(a >= b for a, b in pairwise(ends)):
        raise ArgumentError(f"cycle_ends must be at least one step, and rise, got {ends}; {_WAY_OUT}")
    return ends


def _on_cpu(model: nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    # A copy of the container keeps the versions that modules note beside their tensors.
    kept = copy.copy(state)
    for name, value in state.items():
        is_tensor = isinstance(value, Tensor)
        kept[name] = value.detach().to("cpu", copy=True) if is_tensor else copy.deepcopy(value)
    return kept


def _write_whole(path: Path, state: Mapping[str, Any]) -> None:
    # Through memory: torch's own writer hides an OSError behind an internal one.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(path, buffer.getbuffer())


def _read(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the snapshot {str(path)!r} cannot be read ({type(error).__name__}: {error}); "
            "put the file back, or leave this snapshot out"
        ) from error
    instance("snapshot", state, Mapping, "a state dict", way_out="pass the files that Snapshots wrote")
    assert isinstance(state, Mapping)
    return state
