import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("ray")

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
