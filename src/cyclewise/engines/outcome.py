"""What became of a job, and running one so that it cannot take its worker along."""

import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cyclewise.errors import WorkerError

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        key: the job's key, as given to ``submit``.
        value: what the function returned; None where it raised.
        error: what it raised, or a :class:`WorkerError` where its worker died; None where it returned.
        seconds: how long the function ran; 0 where its worker died.
        traceback: the traceback where the function raised, as text; it is lost when an exception changes process.
    """

    key: Any
    value: Any = None
    error: Exception | None = None
    seconds: float = field(default=0.0, compare=False)
    traceback: str = ""

    @property
    def worker_died(self) -> bool:
        """Whether the job was lost together with its worker, through no exception of its own."""
        return isinstance(self.error, WorkerError)

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


def attempt(function: Function, key: Any, job: Any) -> Outcome:
    """Run ``function(job)`` and return what became of it; only KeyboardInterrupt and SystemExit pass through.

    >>> attempt(lambda x: 1 / x, "a", 2).value, attempt(lambda x: 1 / x, "b", 0).error
    (0.5, ZeroDivisionError('division by zero'))
    """
    start = time.perf_counter()
    try:
        value = function(job)
    except Exception as error:
        return Outcome(key, error=error, seconds=time.perf_counter() - start, traceback=traceback.format_exc())
    return Outcome(key, value, seconds=time.perf_counter() - start)


def packed(outcome: Outcome) -> bytes:
    """Return `outcome` as bytes for another process; what cannot travel is replaced by an error that says so."""
    import cloudpickle

    try:
        data = bytes(cloudpickle.dumps(outcome))
        pickle.loads(data)  # an exception with arguments of its own may pickle and then fail on the other side
        return data
    except Exception as error:
        what = outcome.error if outcome.error is not None else outcome.value
        stand_in = RuntimeError(
            f"{type(what).__name__}: {what}"
            if outcome.error is not None
            else f"a {type(what).__name__} cannot be sent between processes ({type(error).__name__}: {error}); "
            "return plain numbers, or run with one worker in this process"
        )
        lost = Outcome(outcome.key, error=stand_in, seconds=outcome.seconds, traceback=outcome.traceback)
        return bytes(cloudpickle.dumps(lost))
