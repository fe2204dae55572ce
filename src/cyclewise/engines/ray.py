"""Workers on Ray: a local one, the one that is connected already, or a cluster by its address."""

import os
import pickle
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from cyclewise.engines.outcome import Function, Outcome, attempt, packed
from cyclewise.engines.packing import pack, pack_function
from cyclewise.errors import MissingExtraError, WorkerError

_CLIENT_PORT = 10001
_SECONDS_TO_ANSWER = 10.0
# A cluster that grows on demand needs a while for its first node.
_SECONDS_TO_GROW = 120.0
_SECONDS_BETWEEN_LOOKS = 0.5


class RayActors:
    """One Ray actor per worker, one CPU each.

    Args:
        function: what each job is passed to; its modules must be importable on the cluster.
        num_workers: how many actors.
        address: of a cluster; None takes the connection that is there, else starts Ray on this machine.
        num_threads: torch's threads in each.

    Raises:
        ArgumentTypeError: the function cannot be sent to another process.
        MissingExtraError: Ray is not installed.
        WorkerError: the cluster cannot be reached, or has no CPU.
    """

    def __init__(
        self, function: Function, num_workers: int, *, address: str | None = None, num_threads: int = 1
    ) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError.for_extra("ray", "ray") from None
        self.num_workers = num_workers
        self._ray: Any = ray
        self._function = pack_function(function)
        self._num_threads = num_threads
        self._is_ours = not ray.is_initialized()
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Any]] = {}
        if self._is_ours:
            _connect(ray, address, num_workers)
        self._wait_for_cpu()

    def _wait_for_cpu(self) -> None:
        # An actor would wait for one without end.
        give_up = time.monotonic() + _SECONDS_TO_GROW
        while self._ray.cluster_resources().get("CPU", 0.0) < 1.0:
            if time.monotonic() > give_up:
                self.close()
                raise WorkerError(
                    f"engine must be a Ray cluster with at least one CPU, got one with none for {_SECONDS_TO_GROW:g} "
                    'seconds; add a node with `ray start --address=...`, or pass engine="processes"'
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def submit(self, key: Any, job: Any) -> None:
        """Hand a job to an idle actor, starting one where there is none."""
        actor = self._idle.pop() if self._idle else self._start()
        self._running[actor.run.remote(pack(job, "a job"))] = (key, actor)

    def next_outcome(self) -> Outcome:
        """Wait for a job to end."""
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        key, actor = self._running.pop(done[0])
        try:
            outcome: Outcome = pickle.loads(self._ray.get(done[0]))
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            return Outcome(key, error=WorkerError(f"the Ray worker died ({type(error).__name__}: {reason})"))
        self._idle.append(actor)
        return Outcome(key, outcome.value, outcome.error, outcome.seconds, outcome.traceback)

    def close(self) -> None:
        """End the actors, and Ray itself where it was started here."""
        for actor in [*self._idle, *(actor for _, actor in self._running.values())]:
            self._ray.kill(actor)
        self._idle, self._running = [], {}
        if self._is_ours and self._ray.is_initialized():
            self._ray.shutdown()

    def __enter__(self) -> "RayActors":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> Any:
        return self._ray.remote(num_cpus=1)(_Actor).remote(self._function, self._num_threads)


class _Actor:
    def __init__(self, function_data: bytes, num_threads: int) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._function: Function = pickle.loads(function_data)

    def run(self, job: bytes) -> bytes:
        return packed(attempt(lambda data: self._function(pickle.loads(data)), None, job))


def _knock(address: str) -> None:
    """Raise OSError unless something answers at the address: Ray itself would go on trying."""
    place = urlsplit(address if "://" in address else f"//{address}")
    port = place.port or (_CLIENT_PORT if place.scheme else None)
    if place.hostname and port:  # else it is a word such as "auto", which Ray looks up
        socket.create_connection((place.hostname, port), timeout=_SECONDS_TO_ANSWER).close()


def _connect(ray: Any, address: str | None, num_workers: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is not None:
        try:
            _knock(address)
            # Where something else than Ray answers, Ray asks again for a quarter of an hour; two tries are a minute.
            os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            engine = address if address.startswith("ray://") else f"ray:{address}"
            raise WorkerError(
                f"engine must be the address of a Ray cluster that can be reached, got {engine!r} "
                f'({type(error).__name__}: {error}); start one with `ray start --head`, or pass engine="processes"'
            ) from error
        return
    # Local workers find the modules that this process finds, a script's neighbours among them.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=num_workers, runtime_env={"env_vars": {"PYTHONPATH": path}}, **options)
