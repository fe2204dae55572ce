"""Runs kept by content: what was trained once with the same code, settings and seed is read instead of trained again.

A run's name is a hash of all that decides its outcome: policy, seed, ``make_learner`` with the user's modules and the
globals behind it, the parts of cyclewise that train, the releases of torch and NumPy. Data on disk are not looked at. A
file that was torn by a kill or a full disk counts as missing.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cyclewise
from cyclewise.comparison.content import content, digest
from cyclewise.comparison.runs import Job, Run
from cyclewise.errors import CheckpointError
from cyclewise.files import TEMPORARY, write_file
from cyclewise.policies import Policy, identity

_VERSION = 2
# About what a run of a thousand steps needs.
_ROOM = 2**16
# What decides how a run ends; a new picture in a report must not make anybody train again.
_TRAINS = (
    "training", "policies", "range_test", "stepping.py", "scheduler.py", "param_groups.py", "clipping.py",
    "velocity.py", "state.py", "restorers.py", "copies.py", "files.py", "fingerprint.py", "loaders.py", "mismatch.py",
    "ranks.py", "comparison/runs.py", "experiments/fashion.py",
)  # fmt: skip


class Store:
    """A folder of runs.

    Args:
        directory: where they are; made if missing. Several comparisons may share one, also at the same time.
        make_learner: whose runs are meant.

    Raises:
        ArgumentError: `make_learner` holds or reads something that has no content to tell it by.
        CheckpointError: the folder cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], make_learner: Callable[[int], Any]) -> None:
        self._directory = Path(directory)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"store {str(self._directory)!r} cannot be used ({error}); pass another folder, or leave store out"
            ) from error
        self._common = {
            "version": _VERSION,
            "code": code_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "make_learner": content(make_learner),
        }

    def path(self, job: Job) -> Path:
        """Return the file of a run."""
        return self._directory / f"{digest(self._described(job))[:32]}.json"

    def get(self, job: Job) -> Run | None:
        """Return a run; None where it is missing or its file is torn."""
        try:
            values = json.loads(self.path(job).read_text(encoding="utf-8"))
            return Run.from_dict(values["run"]) if values["digest"] == digest(values["run"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, job: Job, run: Run) -> None:
        """Keep a run; whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        values = run.to_dict()
        text = json.dumps({"job": self._described(job), "digest": digest(values), "run": values})
        write_file(self.path(job), text.encode())

    def try_room(self) -> None:
        """Write about as much as a run needs, and remove it again.

        Raises:
            OSError: it cannot be written.
        """
        path = self._directory / f"{TEMPORARY}{secrets.token_hex(8)}.room"
        write_file(path, bytes(_ROOM))
        path.unlink(missing_ok=True)

    def cannot_write(self, error: OSError, num_lost: int) -> CheckpointError:
        """Return what to raise where a run cannot be kept.

        Args:
            error: why.
            num_lost: runs that were finished and are not in the folder.
        """
        lost = f", {num_lost} finished run{'s are' if num_lost > 1 else ' is'} lost" if num_lost else ""
        return CheckpointError(
            f"store {str(self._directory)!r} cannot be written ({error}){lost}; what is in it is whole: make room, and "
            "call it again to go on, or pass another folder"
        )

    def _described(self, job: Job) -> dict[str, Any]:
        sources = [] if job.policy is None else sorted(set(_foreign_sources(job.policy)))
        return {**self._common, **described(job), "policy_source": sources}


def described(job: Job) -> dict[str, Any]:
    """Return what tells a job from another of the same ``make_learner``, as plain values."""
    if job.policy is None:
        return {"seed": job.seed, "policy": None, "total_steps": job.total_steps}
    # As text too, since a user's own class may keep its settings where to_dict() does not look.
    return {"seed": job.seed, "policy": job.policy.to_dict(), "text": identity.text(job.policy)}


@cache
def code_version() -> str:
    """Return a hash of the source of those parts of cyclewise that decide how a run ends.

    >>> len(code_version())
    64
    """
    root = Path(cyclewise.__file__).parent
    files = [
        path for part in _TRAINS for path in ([root / part] if part.endswith(".py") else (root / part).glob("*.py"))
    ]
    return digest([cyclewise.__version__, *((file.name, file.read_text("utf-8")) for file in sorted(files))])


def _foreign_sources(policy: Policy) -> Iterator[str]:
    """Yield the source of the user's own policies; those of cyclewise are part of its version."""
    if not type(policy).__module__.startswith("cyclewise."):
        yield content(type(policy))
    for value in vars(policy).values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, Policy):
                yield from _foreign_sources(item)
