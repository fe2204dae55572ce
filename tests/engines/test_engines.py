import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from cyclewise import ArgumentError, ArgumentTypeError, WorkerError
from cyclewise.engines import check_engine, make_workers, run_all


class Refuses(Exception):
    """Pickles, and then cannot be loaded: its constructor wants two arguments."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


def work(job):
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exit":
        os._exit(3)
    if job == "fail":
        raise Refuses(1, 2)
    if job == "lambda":
        return threading.Lock()
    if job == "threads":
        return torch.get_num_threads()
    return job * 2


def test_every_job_has_its_outcome():
    with make_workers(work, engine="local", workers=2) as workers:
        outcomes = {outcome.key: outcome.value for outcome in run_all(workers, [(k, k + 10) for k in range(7)])}
    assert outcomes == {k: 2 * (k + 10) for k in range(7)}


def test_one_local_worker_is_this_process_and_keeps_the_exception():
    error = ValueError("mine")

    def closure(job):
        raise error

    with make_workers(closure) as workers:
        workers.submit(0, None)
        outcome = workers.next_outcome()
    assert outcome.error is error
    assert "in closure" in outcome.traceback
    with pytest.raises(ValueError, match="mine"):
        outcome.result()


def test_a_worker_that_dies_costs_its_job_alone():
    jobs = ["die", 1, "exit", 2, 3]
    with make_workers(work, engine="processes", workers=2) as workers:
        outcomes = {outcome.key: outcome for outcome in run_all(workers, enumerate(jobs))}
    assert [outcomes[k].value for k in (1, 3, 4)] == [2, 4, 6]
    assert str(outcomes[0].error) == "the worker process died (killed by SIGKILL)"
    assert str(outcomes[2].error) == "the worker process died (exit status 3)"
    assert outcomes[0].worker_died
    assert not multiprocessing.active_children()


def test_closures_travel_and_what_cannot_come_back_says_so():
    factor = 3
    with make_workers(lambda job: work(job) if isinstance(job, str) else factor * job, engine="processes") as workers:
        outcomes = {outcome.key: outcome for outcome in run_all(workers, enumerate([5, "fail", "lambda", "threads"]))}
    assert outcomes[0].value == 15
    assert str(outcomes[1].error) == "Refuses: 1 2"
    assert "raise Refuses(1, 2)" in outcomes[1].traceback
    assert str(outcomes[2].error) == (
        "a lock cannot be sent between processes (TypeError: cannot pickle '_thread.lock' object); "
        "return plain numbers, or run with one worker in this process"
    )
    assert outcomes[3].value == 1


def test_a_function_that_cannot_travel_is_refused():
    lock = threading.Lock()
    message = (
        "the function of a worker must be something that can be sent to another process, got function "
        "(TypeError: cannot pickle '_thread.lock' object); open files, loaders and locks inside the function, "
        'or run it with engine="local" and one worker'
    )
    with pytest.raises(ArgumentTypeError, match=re.escape(message)):
        make_workers(lambda job: lock, engine="processes")


def test_unknown_engines_are_refused():
    message = (
        "engine must be one of 'local', 'processes', 'ray' or the address of a Ray cluster, got 'dask'; "
        'for a cluster pass its address, for example "ray://head:10001"'
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        check_engine("dask")
    for address in ("ray:", "ray://", "ray: "):
        with pytest.raises(ArgumentError, match=re.escape(message.replace("dask", address))):
            check_engine(address)
    with pytest.raises(
        ArgumentTypeError, match=re.escape('engine must be a name, got int 3; pass for example "local"')
    ):
        check_engine(3)


def is_running(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_script_without_a_guard_gets_one_clear_error(tmp_path):
    path = script(
        tmp_path,
        """
        from cyclewise.engines import make_workers, run_all
        with make_workers(abs, engine="processes") as workers:
            print(list(run_all(workers, [(0, -1)])))
        """,
    )
    run = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.count("Traceback") == 1
    assert run.stderr.rstrip().endswith(
        "WorkerError: worker processes run the script anew when they start, and it came to this call again: the call "
        'must stand under `if __name__ == "__main__":`; move it there, into a function main() for example, '
        "or run with one worker in this process"
    )


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    path = script(
        tmp_path,
        """
        import os, sys, time
        from cyclewise.engines import make_workers

        def work(job):
            print(os.getpid(), flush=True)
            time.sleep(60)

        if __name__ == "__main__":
            workers = make_workers(work, engine="processes")
            workers.submit(0, None)
            workers.next_outcome()
        """,
    )
    parent = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def test_a_worker_that_cannot_load_its_function(tmp_path):
    class Unloadable:
        def __call__(self, job):
            return job

        def __reduce__(self):
            return eval, ("1 / 0",)

    with make_workers(Unloadable(), engine="processes") as workers:
        workers.submit(0, 1)
        with pytest.raises(WorkerError, match=re.escape("(ZeroDivisionError: division by zero); put it in a module")):
            workers.next_outcome()
