"""What a run's newest checkpoint says of it, without its model: the records, for a report."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclewise.errors import CheckpointError
from cyclewise.range_test import RangeTest
from cyclewise.training import saving
from cyclewise.training.calls import unpacked
from cyclewise.training.history import Epoch, History


def recorded(directory: str | os.PathLike[str]) -> tuple[list[RangeTest], History]:
    """Return the range tests and the history that a run's newest checkpoint holds.

    Of a fit that was cut off, or is still going on, there are losses and scores, but no rates: its policy is text.

    Args:
        directory: where a :class:`Checkpoint` or ``learn.save()`` wrote.

    Raises:
        ArgumentError: it is a file.
        ArgumentTypeError: it is no path.
        CheckpointError: it holds no checkpoint, or all are damaged.

    Example:
        >>> import tempfile, torch, cyclewise as cw
        >>> data = cw.Data.from_arrays(torch.randn(64, 4), torch.arange(64) % 2, batch_size=16)
        >>> learn = cw.Learner(torch.nn.Linear(4, 2), data, progress=False)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = learn.fit(cw.Constant(lr=0.1, total_steps=10), callbacks=[cw.Checkpoint(directory)])
        ...     range_tests, history = recorded(directory)
        >>> range_tests, history == learn.history
        ([], True)
    """
    path = saving.as_directory(directory)
    found = saving.newest(path)
    if found is None:
        raise CheckpointError(
            f"directory must hold a checkpoint, got {str(Path(directory))!r}, which holds none; pass the folder of a "
            "Checkpoint, that of `cyclewise fit --run`, or what learn.save() has returned"
        )
    _, state, _ = found
    range_tests = [RangeTest.from_dict(call["record"]) for call in state["calls"] if call["kind"] == "lr_find"]
    history = unpacked(state["history"])
    return range_tests, history if state["run"] is None else history.followed_by(_under_way(state["run"]))


def _under_way(run: Mapping[str, Any]) -> History:
    losses = run["recorder"]["losses"].tolist()
    unknown = [math.nan] * len(losses)
    epochs = tuple(Epoch.from_dict(epoch) for epoch in run["recorder"]["epochs"])
    return History(lr=unknown, momentum=unknown, loss=losses, epochs=epochs, policies=(run["policy"],))  # type: ignore[arg-type]
