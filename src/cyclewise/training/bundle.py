"""Checkpoints on disk: one folder each, written whole or not at all, checked before they are believed.

A checkpoint is a folder ``000007-step-00000120`` with ``state.pt`` (``torch.save``, loaded with ``weights_only=True``,
so that loading runs no code) and ``manifest.json``, which holds the size and SHA-256 of the state and what can be said
without loading it. The first number counts the checkpoints of a directory, so that a later one never overwrites one.
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cyclewise.errors import CheckpointError
from cyclewise.files import TEMPORARY, write_folder

_FORMAT = "cyclewise checkpoint"
_VERSION = 2
_NAME = re.compile(r"(\d{6,})-step-(\d{8,})")


@dataclass(frozen=True)
class Found:
    """A folder that is named like a checkpoint.

    Attributes:
        path: the folder.
        index: its number in the directory.
        step: steps done when it was written.
    """

    path: Path
    index: int
    step: int


def find(directory: Path) -> list[Found]:
    """Return the checkpoints of a directory, oldest first, or the one that it is.

    Leftovers of writes that never ended are not among them.
    """
    if not directory.is_dir():
        return []
    found = []
    for path in [directory] if (directory / "manifest.json").is_file() else directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir():
            found.append(Found(path, int(match[1]), int(match[2])))
    return sorted(found, key=lambda item: item.index)


def write(directory: Path, state: Mapping[str, Any], *, step: int, about: Mapping[str, Any]) -> Found:
    """Write a checkpoint after the newest one of the directory.

    Args:
        directory: made if it is missing.
        state: tensors, numbers, strings and containers of them.
        step: steps done.
        about: plain JSON values for the manifest.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    directory.mkdir(parents=True, exist_ok=True)
    before = find(directory)
    index = before[-1].index + 1 if before else 1
    manifest: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "step": step, **about}
    # Through memory: torch's own writer hides an OSError behind an internal one.
    buffer = io.BytesIO()
    torch.save({"manifest": json.dumps(manifest, sort_keys=True), **state}, buffer)
    payload = buffer.getbuffer()
    manifest["bytes"], manifest["sha256"] = len(payload), hashlib.sha256(payload).hexdigest()
    path = directory / f"{index:06d}-step-{step:08d}"
    write_folder(path, {"state.pt": payload, "manifest.json": json.dumps(manifest, indent=1).encode()})
    return Found(path, index, step)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest.

    Raises:
        CheckpointError: it is missing, or not one of this library and version.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} has no readable manifest ({type(error).__name__}); it is not used"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{str(path)!r} is not a checkpoint that cyclewise wrote; it is not used")
    if manifest.get("version") != _VERSION:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} has the version {manifest.get('version')!r}, this is version {_VERSION}; "
            "resume it with the cyclewise that wrote it"
        )
    return manifest


def read(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint after checking that it is the one that was written; runs no code from it.

    Raises:
        CheckpointError: it is truncated, was edited, or is not a checkpoint of this library.
    """
    manifest = read_manifest(path)
    try:
        payload = (path / "state.pt").read_bytes()
    except OSError as error:
        raise CheckpointError(f"the checkpoint {str(path)!r} has no readable state.pt; it is not used") from error
    if len(payload) != manifest.get("bytes"):
        raise CheckpointError(
            f"the checkpoint {str(path)!r} is truncated: state.pt has {len(payload)} bytes, "
            f"{manifest.get('bytes')} were written; it is not used"
        )
    if hashlib.sha256(payload).hexdigest() != manifest.get("sha256"):
        raise CheckpointError(f"the checkpoint {str(path)!r} was changed after it was written; it is not used")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} cannot be loaded without running code ({type(error).__name__}); "
            "it is not used"
        ) from error
    try:
        own = json.loads(state.pop("manifest"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {str(path)!r} holds no state of a Learner; it is not used") from error
    if own != {name: value for name, value in manifest.items() if name not in ("bytes", "sha256")}:
        raise CheckpointError(f"the manifest of {str(path)!r} was changed after it was written; it is not used")
    assert isinstance(state, dict)
    return state


def remove(found: Found) -> None:
    """Remove a checkpoint; a crash on the way leaves a leftover that is ignored, not half of a checkpoint."""
    doomed = found.path.with_name(f"{TEMPORARY}{found.path.name}.tmp")
    try:
        found.path.rename(doomed)
    except OSError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
