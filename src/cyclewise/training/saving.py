"""All that a Learner is, as one state, and back: what a checkpoint holds."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclewise._validation import describe
from cyclewise.errors import ArgumentError, ArgumentTypeError, CheckpointError
from cyclewise.training import bundle, hidden, optimizer_state
from cyclewise.training.calls import packed, unpacked
from cyclewise.training.parts import Parts
from cyclewise.training.place import Place

# What `collect` returns.
_ENTRIES = {
    "num_ranks", "model", "optimizer", "optimizer_kind", "scaler", "clip", "calls", "history", "run", "places",
}  # fmt: skip


class SaveMethods(Parts):
    """What a Learner can be asked to write and to read back."""

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write a checkpoint of everything, also from a callback in the middle of a fit, and return its folder.

        Raises:
            OSError: it cannot be written; checkpoints before it are still there.
        """
        path = as_directory(directory)
        found = write(self, path)
        return path if found is None else found.path

    def resume(self, directory: str | os.PathLike[str]) -> int:
        """Go back to the newest checkpoint; the same calls as before then go on from there.

        Fits and range tests that had ended return their stored records; the fit that was cut off goes on with its next
        step and ends with the bits of an uninterrupted run.

        Args:
            directory: where a :class:`Checkpoint` or :meth:`save` wrote; or one checkpoint's own folder, such as what
                :meth:`save` returned.

        Returns:
            the steps that were done, over all fits; 0, with a warning, where there is no checkpoint. A
            :class:`Checkpoint` may go on writing there.

        Raises:
            CheckpointError: all checkpoints are damaged, or they are of another model, optimizer or number of ranks.
        """
        found = _load(self, directory)
        if found is None:
            warnings.warn(f"there is no complete checkpoint in {str(directory)!r}; starting from step 0", UserWarning,
                          stacklevel=2)  # fmt: skip
            return 0
        checkpoint, state = found
        restore_position(self, state, checkpoint.path)
        self.interrupted = state["run"]
        self.own_directories.add(checkpoint.path.parent.resolve())
        return checkpoint.step

    def load(self, directory: str | os.PathLike[str]) -> int:
        """Take weights, optimizer state and history from the newest checkpoint, and train on in any other way.

        That is another run: its checkpoints need another directory.

        Args:
            directory: as for :meth:`resume`.

        Returns:
            the steps that were done, over all fits.

        Raises:
            CheckpointError: there is no checkpoint, all are damaged, or they are of another model or optimizer.
        """
        found = _load(self, directory)
        if found is None:
            # A first run may well resume nothing; who loads wants weights, and would go on with untrained ones.
            exists = "it holds none" if as_directory(directory).is_dir() else "there is no such folder"
            raise CheckpointError(
                f"directory must hold a checkpoint to load, got {str(directory)!r}: {exists}; pass the directory of a "
                "Checkpoint, or what learn.save() has returned"
            )
        # Another run: what an earlier resume() remembered of the old one no longer counts.
        self.interrupted = None
        self.calls.load([])
        return found[0].step


def as_directory(directory: Any) -> Path:
    """Return a folder's path.

    Raises:
        ArgumentTypeError: it is no path.
        ArgumentError: it is a file.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise ArgumentTypeError(f'directory must be a path, got {describe(directory)}; pass for example "run"')
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise ArgumentError(
            f"directory must be a folder, got the file {str(directory)!r}; pass another path, it is made if missing"
        )
    return path


def refuse_other_run(learner: Parts, directory: Path) -> None:
    """Refuse a directory that is not for this Learner's checkpoints alone; every rank must call it.

    Two runs in one directory would push each other's checkpoints out, and the best of both would be that of one.

    Raises:
        CheckpointError: it holds the checkpoints of a run that the Learner has neither begun nor resumed.
    """
    refuse(learner, lambda: _other_run(learner, directory))


def refuse(learner: Parts, look: Callable[[], str | None]) -> None:
    """Refuse a directory for what the first rank sees in it; every rank must call it.

    Raises:
        CheckpointError: there is something to be said against it.
    """
    # The first rank writes, so what it sees decides; another one may see what the first has just written.
    complaint = learner.runtime.gather(look() if learner.runtime.is_main else None)[0]
    if complaint is not None:
        raise CheckpointError(complaint)


def _other_run(learner: Parts, directory: Path) -> str | None:
    found = bundle.find(directory)
    if not found or directory.resolve() in learner.own_directories:
        return None
    if found[0].path == directory:
        return (
            f"directory must be the folder of a run, got that of a single checkpoint, {str(directory)!r}; pass the one "
            f"it lies in, {str(directory.parent)!r}, to go on with its run, or another directory"
        )
    return (
        f"directory must hold no other run, got {str(directory)!r} with {len(found)} checkpoint(s) of one that this "
        f"Learner has not resumed, the last at step {found[-1].step}; call learn.resume({str(directory)!r}) before the "
        "first fit to go on with it, or pass another directory"
    )


def collect(learner: Parts) -> dict[str, Any]:
    """Return the state of a Learner, in the middle of a fit or between two; every rank must call it."""
    run, runtime, clip = learner.run, learner.runtime, learner.clip
    return {
        "num_ranks": runtime.num_ranks,
        "model": learner.model.state_dict(),
        "buffers": hidden.hidden_buffers(learner.model),
        "optimizer": learner.optimizer.state_dict(),
        "optimizer_kind": type(learner.optimizer).__name__,
        "scaler": None if runtime.scaler is None else runtime.scaler.state_dict(),
        "clip": None if clip is None else clip.state_dict(),
        "calls": learner.calls.state_dict(),
        "history": packed(learner.history),
        "run": None if run is None else run.state_dict(),
        "places": None if run is not None else places(learner),
    }


def places(learner: Parts) -> list[dict[str, Any]]:
    """Return the place of every rank between two fits, which is that of a run that has not begun."""
    data = learner.own_data
    return learner.runtime.gather(Place(data.train_loader, data.valid_loader).state_dict())


def go_to(learner: Parts, saved: Sequence[Mapping[str, Any]]) -> None:
    """Take up the place of this rank among those that :func:`places` returned.

    Raises:
        CheckpointError: it is one in other data.
    """
    data = learner.own_data
    Place(data.train_loader, data.valid_loader).load_state_dict(saved[learner.runtime.rank])


def write(learner: Parts, directory: Path, *, valid_loss: float | None = None) -> bundle.Found | None:
    """Write a checkpoint; the first rank does, the others return None.

    Raises:
        OSError: it cannot be written.
        CheckpointError: another run has begun in the directory at the same moment.
    """
    state = collect(learner)
    if not learner.runtime.is_main:
        return None
    num_steps = learner.history.num_steps + (0 if learner.run is None else learner.run.num_steps)
    begins = not bundle.find(directory)
    found = bundle.write(directory, state, step=num_steps, about={"valid_loss": valid_loss})
    if begins:
        if len(bundle.find(directory)) > 1:
            bundle.remove(found)
            raise CheckpointError(
                f"directory must be that of one run, got {str(directory)!r}, where another one has just written its "
                "first checkpoint too; start one of them again in another directory"
            )
        learner.own_directories.add(directory.resolve())
    learner.last_checkpoint = found.path
    return found


def newest(directory: Path) -> tuple[bundle.Found, dict[str, Any], list[str]] | None:
    """Return the newest checkpoint that can be believed, its state, and what was wrong with newer ones.

    Returns:
        None where the directory holds no checkpoint.

    Raises:
        CheckpointError: it holds some, and all are damaged.
    """
    found = bundle.find(directory)
    complaints: list[str] = []
    for checkpoint in reversed(found):
        try:
            state = bundle.read(checkpoint.path)
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        missing = sorted(_ENTRIES - set(state))
        if not missing:
            return checkpoint, state, complaints
        complaints.append(f"the checkpoint {str(checkpoint.path)!r} lacks {', '.join(missing)}; it is not used")
    if found:
        raise CheckpointError(
            f"directory must hold a checkpoint that can be used, got {len(found)} damaged one(s) in "
            f"{str(directory)!r}; start the run again in another directory: " + "; ".join(complaints)
        )
    return None


def restore_weights(learner: Parts, state: Mapping[str, Any], path: Path) -> None:
    """Put weights, optimizer, scaler, clipping and history back.

    Raises:
        CheckpointError: the state is that of another model, optimizer or number of processes.
    """
    runtime = learner.runtime
    own = learner.model.state_dict()
    differing = [
        name for name in {**own, **state["model"]}
        if name not in own or name not in state["model"] or _shape(own[name]) != _shape(state["model"][name])
    ]  # fmt: skip
    if differing:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} is of another model: {len(differing)} of its entries differ, such as "
            f"{differing[0]!r}; make the Learner with the model that was saved"
        )
    kind = type(learner.optimizer).__name__
    if state["optimizer_kind"] != kind:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} is of another optimizer, {state['optimizer_kind']}, got {kind}; "
            "make the Learner with the one that was saved"
        )
    try:
        optimizer_state.load(learner.optimizer, state["optimizer"])
    except ValueError as error:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} is of another optimizer ({error}); make the Learner with the one that was "
            "saved"
        ) from error
    learner.model.load_state_dict(state["model"])
    hidden.restore_buffers(learner.model, state.get("buffers", {}))
    if runtime.scaler is not None and state["scaler"] is not None:
        runtime.scaler.load_state_dict(state["scaler"])
    if learner.clip is not None and state["clip"] is not None:
        learner.clip.load_state_dict(state["clip"])
    learner.history = unpacked(state["history"])


def restore_position(learner: Parts, state: Mapping[str, Any], path: Path) -> None:
    """Put back the calls that were made, and between two fits the place in the data.

    Raises:
        CheckpointError: the state is that of another number of processes.
    """
    runtime = learner.runtime
    if state["num_ranks"] != runtime.num_ranks:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} was written by {state['num_ranks']} processes, got {runtime.num_ranks}; "
            "start as many, or take its weights alone with learn.load(directory)"
        )
    learner.calls.load(state["calls"])
    if state["places"] is not None:
        go_to(learner, state["places"])


def _load(learner: Parts, directory: str | os.PathLike[str]) -> tuple[bundle.Found, dict[str, Any]] | None:
    found = newest(as_directory(directory))
    if found is None:
        return None
    checkpoint, state, complaints = found
    for complaint in complaints:
        warnings.warn(f"{complaint}; the one before it is", UserWarning, stacklevel=3)
    restore_weights(learner, state, checkpoint.path)
    learner.last_checkpoint = checkpoint.path
    return checkpoint, state


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)
