"""The interface of an engine, the engine in this process, and the choice between them.

A function travels to each worker once; jobs follow one by one. A worker that dies costs the job that it was at: the
outcome says so, and another worker takes its place.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol

from cyclewise._validation import describe
from cyclewise.engines.outcome import Function, Outcome, attempt
from cyclewise.errors import ArgumentError, ArgumentTypeError

ENGINES = ("local", "processes", "ray")


class Workers(Protocol):
    """Some workers that hold the same function.

    Attributes:
        num_workers: jobs that may be under way at the same time.
    """

    num_workers: int

    def submit(self, key: Any, job: Any) -> None:
        """Hand in a job; its outcome will carry `key`. At most `num_workers` may be under way."""
        ...

    def next_outcome(self) -> Outcome:
        """Wait for a job to end and return what became of it."""
        ...

    def close(self) -> None:
        """End the workers, also in the middle of a job. A second call does nothing."""
        ...

    def __enter__(self) -> "Workers": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InProcess:
    """One worker: this process. A job runs when its outcome is asked for; the function need not be picklable."""

    num_workers = 1

    def __init__(self, function: Function) -> None:
        self._function = function
        self._jobs: deque[tuple[Any, Any]] = deque()

    def submit(self, key: Any, job: Any) -> None:
        """Hand in a job."""
        self._jobs.append((key, job))

    def next_outcome(self) -> Outcome:
        """Run the next job."""
        key, job = self._jobs.popleft()
        return attempt(self._function, key, job)

    def close(self) -> None:
        """Forget the jobs."""
        self._jobs.clear()

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_engine(engine: Any) -> None:
    """Raise unless `engine` is "local", "processes", "ray", or the address of a Ray cluster.

    >>> check_engine("ray://head:10001")
    """
    if not isinstance(engine, str):
        raise ArgumentTypeError(f'engine must be a name, got {describe(engine)}; pass for example "local"')
    if engine not in ENGINES and not (engine.startswith("ray:") and engine[len("ray:") :].strip(" /")):
        raise ArgumentError(
            f"engine must be one of {', '.join(map(repr, ENGINES))} or the address of a Ray cluster, got {engine!r}; "
            'for a cluster pass its address, for example "ray://head:10001"'
        )


def make_workers(function: Function, *, engine: str = "local", workers: int = 1, num_threads: int = 1) -> Workers:
    """Return workers that hold `function`.

    Args:
        function: what each job is passed to. Beyond this process it travels by cloudpickle: functions and classes of
            the script or notebook itself by value, those of modules by name.
        engine: "local": this process for one worker, spawned processes for several; "processes": spawned ones always;
            "ray": a local Ray or the one that is connected already; or the address of a cluster, ``"ray://head:10001"``
            (or ``"ray:auto"`` for the one that this machine belongs to).
        workers: how many.
        num_threads: torch's threads per spawned worker. This process keeps its own.

    Raises:
        ArgumentError: there is no such engine.
        ArgumentTypeError: the function cannot be sent to another process.
        MissingExtraError: Ray is asked for and not installed.
        WorkerError: the cluster cannot be reached.

    >>> with make_workers(abs) as workers:
    ...     workers.submit("a", -3)
    ...     workers.next_outcome().value
    3
    """
    check_engine(engine)
    if engine.startswith("ray"):
        from cyclewise.engines.ray import RayActors

        address = None if engine == "ray" else engine if engine.startswith("ray://") else engine.removeprefix("ray:")
        return RayActors(function, workers, address=address, num_threads=num_threads)
    if engine == "local" and workers == 1:
        return InProcess(function)
    from cyclewise.engines.processes import Processes

    return Processes(function, workers, num_threads=num_threads)


def run_all(workers: Workers, jobs: Iterable[tuple[Any, Any]]) -> Iterator[Outcome]:
    """Run ``(key, job)`` pairs, as many at a time as there are workers, and yield outcomes as they come.

    >>> with make_workers(abs) as workers:
    ...     [outcome.value for outcome in run_all(workers, [("a", -3), ("b", -4)])]
    [3, 4]
    """
    waiting = iter(jobs)
    running = 0
    while True:
        while running < workers.num_workers and (pair := next(waiting, None)) is not None:
            workers.submit(*pair)
            running += 1
        if not running:
            return
        running -= 1
        yield workers.next_outcome()
