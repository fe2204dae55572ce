"""Workers with a store behind them: a run is read where it is kept, else made and kept; once more if a worker died."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from cyclewise.comparison.runs import Job, Run
from cyclewise.comparison.store import Store, described
from cyclewise.engines import Outcome, Workers, run_all
from cyclewise.errors import CyclewiseError, WorkerError
from cyclewise.mismatch import add_note


class Crew:
    """Makes runs.

    Args:
        workers: hold a :class:`~cyclewise.comparison.runs.Runner`.
        store: where finished runs are kept; None keeps them in memory alone.
        on_run: called with a line about each run that has ended.
    """

    def __init__(self, workers: Workers, store: Store | None, on_run: Callable[[str], None]) -> None:
        self._workers = workers
        self._store = store
        self._on_run = on_run
        self._runs: dict[str, Run] = {}
        self._unkept: dict[str, Job] = {}
        self._full: OSError | None = None

    def run(self, jobs: Mapping[str, Iterable[Job]]) -> dict[str, list[Run]]:
        """Make the runs of several names, seed by seed, and return them by name; equal jobs are made once.

        Raises:
            CheckpointError: the store cannot be written; the message says how many finished runs are lost.
            WorkerError: a worker died twice over the same run.
            Exception: what the user's code raised, with the worker's traceback as a note.
        """
        listed = {name: list(own) for name, own in jobs.items()}
        names = {_key(job): (name, job) for name, own in reversed(listed.items()) for job in own}
        # All policies' first seeds come before their second ones: what is there after an interrupt can be compared.
        order = [
            own[i] for i in range(max(map(len, listed.values()), default=0)) for own in listed.values() if i < len(own)
        ]
        missing = {}
        for job in order:
            key = _key(job)
            kept = self._runs.get(key) or (None if self._store is None else self._store.get(job))
            if kept is None:
                missing[key] = job
            else:
                self._runs[key] = kept
                self._on_run(_line(*names[key]))
        if missing:
            self._try_room()
        died = [outcome.key for outcome in self._make(missing, names) if outcome.worker_died]
        for outcome in self._make({key: missing[key] for key in died}, names):
            if outcome.worker_died:
                raise WorkerError(
                    f'{_line(*names[outcome.key])}: {outcome.error}, twice; run it with engine="local" to see why, or '
                    "with fewer workers if memory ran out"
                )
        return {name: [self._runs[_key(job)] for job in own] for name, own in listed.items()}

    def _make(self, jobs: Mapping[str, Job], names: Mapping[str, tuple[str, Job]]) -> Iterable[Outcome]:
        for outcome in run_all(self._workers, self._begun(jobs)):
            if outcome.error is None:
                self._runs[outcome.key] = outcome.value
                self._unkept[outcome.key] = jobs[outcome.key]
                self._keep()
                self._on_run(_line(*names[outcome.key]))
            elif not outcome.worker_died:
                where = _line(*names[outcome.key])
                is_ours = isinstance(outcome.error, CyclewiseError)  # its message says all
                add_note(outcome.error, where if is_ours else f"{where}; in the worker:\n{outcome.traceback}")
                raise outcome.error
            yield outcome
        if self._store is not None and self._full is not None:
            failure = self._full
            self._keep()  # while the last runs ended there may have come room
            if self._unkept or any(key not in self._runs for key in jobs):
                raise self._store.cannot_write(failure, len(self._unkept)) from failure

    def _begun(self, jobs: Mapping[str, Job]) -> Iterator[tuple[str, Job]]:
        for pair in jobs.items():
            if self._full is not None:
                return  # those that are under way still end
            yield pair

    def _keep(self) -> None:
        try:
            for key, job in list(self._unkept.items()):
                if self._store is not None:
                    self._store.put(job, self._runs[key])
                del self._unkept[key]
        except OSError as error:
            self._full = error

    def _try_room(self) -> None:
        if self._store is not None:
            try:
                self._store.try_room()
            except OSError as error:
                raise self._store.cannot_write(error, 0) from error


def _key(job: Job) -> str:
    return json.dumps(described(job), sort_keys=True)


def _line(name: str, job: Job) -> str:
    return f"{name}, seed {job.seed}"
