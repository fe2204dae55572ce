import socket
import subprocess
import sys
import textwrap

import pytest

from cyclewise.engines import make_workers
from cyclewise.engines import ray as engine
from cyclewise.errors import WorkerError

ray = pytest.importorskip("ray")

# In a process of its own: Ray leaves threads and handlers behind.
PROGRAM = """
import os
from cyclewise.engines import make_workers, run_all

def work(job):
    if job == "die":
        os._exit(3)
    if job == "fail":
        raise ValueError("mine")
    return job * 2

with make_workers(work, engine="ray", workers=2) as workers:
    outcomes = {o.key: o for o in run_all(workers, enumerate([1, "die", 2, "fail", 3]))}
assert [outcomes[k].value for k in (0, 2, 4)] == [2, 4, 6]
assert outcomes[1].worker_died, outcomes[1]
assert str(outcomes[1].error).startswith("the Ray worker died (ActorDiedError"), outcomes[1]
assert repr(outcomes[3].error) == "ValueError('mine')"
print("done")
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_runs_jobs_and_outlives_a_worker(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    run = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("done\n")


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", ["ray:", "ray://"])
def test_a_cluster_that_does_not_answer_is_an_error_at_once(scheme, free_port):
    with pytest.raises(WorkerError) as caught:
        make_workers(abs, engine=f"{scheme}127.0.0.1:{free_port}")
    assert str(caught.value) == (
        f"engine must be the address of a Ray cluster that can be reached, got '{scheme}127.0.0.1:{free_port}' "
        "(ConnectionRefusedError: [Errno 111] Connection refused); start one with `ray start --head`, or pass "
        'engine="processes"'
    )


@pytest.mark.timeout(60)
def test_a_cluster_without_a_cpu_is_an_error_after_a_while(monkeypatch):
    looks = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: looks.append(1) or {"memory": 1.0})
    monkeypatch.setattr(engine, "_SECONDS_TO_GROW", 0.2)
    monkeypatch.setattr(engine, "_SECONDS_BETWEEN_LOOKS", 0.01)
    with pytest.raises(WorkerError) as caught:
        make_workers(abs, engine="ray")
    assert str(caught.value) == (
        "engine must be a Ray cluster with at least one CPU, got one with none for 0.2 seconds; add a node with "
        '`ray start --address=...`, or pass engine="processes"'
    )
    assert len(looks) > 2
