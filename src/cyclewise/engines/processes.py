"""Spawned local processes, each with its own Python and torch.

Processes are spawned, not forked: torch's threads do not survive a fork. A worker ignores Ctrl-C, which is the
parent's to answer, and ends when its parent does.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from cyclewise.engines.outcome import Function, Outcome, attempt, packed
from cyclewise.engines.packing import pack, pack_function
from cyclewise.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The exit status of a child that was about to spawn children of its own while it was still being started.
_UNGUARDED = 86
_SECONDS_TO_END = 5.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    key: Any = None
    is_busy: bool = False
    is_ready: bool = False


class Processes:
    """Local worker processes.

    Args:
        function: what each job is passed to.
        num_workers: how many processes.
        num_threads: torch's threads in each.

    Raises:
        ArgumentTypeError: the function cannot be sent to another process.
        WorkerError: a worker cannot be started; the message says why.
    """

    def __init__(self, function: Function, num_workers: int, *, num_threads: int = 1) -> None:
        _end_unguarded_child()
        self.num_workers = num_workers
        self._function = pack_function(function)
        self._num_threads = num_threads
        self._workers: list[_Worker] = []
        self._ended: deque[Outcome] = deque()

    def submit(self, key: Any, job: Any) -> None:
        """Hand a job to an idle worker, starting one where there is none."""
        data = pack(job, "a job")
        while True:
            worker = next((worker for worker in self._workers if not worker.is_busy), None) or self._start()
            try:
                worker.pipe.send_bytes(data)
            except OSError:  # it died while it was idle
                self._remove(worker)
                continue
            worker.key, worker.is_busy = key, True
            return

    def next_outcome(self) -> Outcome:
        """Wait for a job to end.

        Raises:
            WorkerError: a worker died before it was ready for a job, or could not take the function up.
        """
        while True:
            if self._ended:
                return self._ended.popleft()
            busy = {worker.pipe: worker for worker in self._workers if worker.is_busy}
            for pipe in wait(list(busy)):
                self._hear(busy[pipe])  # type: ignore[index]

    def close(self) -> None:
        """End the workers, also in the middle of a job."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._function, self._num_threads), name="cyclewise-worker"
        )
        with _threads_in_environment(self._num_threads):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker) -> None:
        try:
            data = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            self._bury(worker)
            return
        message = pickle.loads(data)
        if isinstance(message, Outcome):
            worker.is_busy = False
            self._ended.append(Outcome(worker.key, message.value, message.error, message.seconds, message.traceback))
        elif message is None:
            worker.is_ready = True
        else:
            raise WorkerError(
                f"a worker process could not load the function it is to run ({message}); put it in a module that the "
                "worker can import, or run with one worker in this process"
            )

    def _bury(self, worker: _Worker) -> None:
        status = self._remove(worker)
        if not worker.is_ready:
            raise WorkerError(_unguarded() if status == _UNGUARDED else _stillborn(status)) from None
        self._ended.append(Outcome(worker.key, error=WorkerError(f"the worker process died ({_in_words(status)})")))

    def _remove(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(_SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        status = worker.process.exitcode
        worker.process.close()
        return status


def _serve(pipe: Connection, function_data: bytes, num_threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    import torch

    torch.set_num_threads(num_threads)
    try:
        function = pickle.loads(function_data)
    except Exception as error:
        pipe.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
        return
    pipe.send_bytes(pickle.dumps(None))
    while True:
        try:
            job = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(packed(attempt(lambda data: function(pickle.loads(data)), None, job)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _end_unguarded_child() -> None:
    # A spawned child runs its parent's script anew. One that comes here while it is still being started would spawn
    # children without end; its parent reads the status and says what is wrong, once.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)


@contextmanager
def _threads_in_environment(num_threads: int) -> "Iterator[None]":
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(num_threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _unguarded() -> str:
    return (
        "worker processes run the script anew when they start, and it came to this call again: the call must stand "
        'under `if __name__ == "__main__":`; move it there, into a function main() for example, '
        "or run with one worker in this process"
    )


def _stillborn(status: int | None) -> str:
    return (
        f"a worker process ended before it could take a job ({_in_words(status)}); what it printed stands above; "
        "run with one worker in this process to see the error whole"
    )


def _in_words(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
